"""Notices to send."""

from typing import Any

from daemon.domain.notifications import EVENTS, Action, Button, Notice

WHEN = 1_800_000_000
RENEWED: dict[str, Any] = {
    "sessionId": "s-1",
    "agentName": "bot",
    "renewalCount": 3,
    "maxRenewals": 30,
    "remainingAbsoluteLife": "27d 12h",
    "rejectWindowExpiry": WHEN,
}
"""The context of SESSION_RENEWED."""
ACTIONS: tuple[Action, ...] = ("keep", "reject", "suspend_agent", "kill_switch")
BUTTONS = tuple(Button(action, f"{number}" * 32) for number, action in enumerate(ACTIONS))


def notice(event: str, reject_url: str | None = None, buttons: tuple[Button, ...] = (), **context: Any) -> Notice:
    """Return a notice of the event's own level."""
    return Notice(
        id="ntf-1",
        event=event,
        level=EVENTS.get(event, "INFO"),
        at=WHEN,
        context=context,
        reject_url=reject_url,
        buttons=buttons,
    )
