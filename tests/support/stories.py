"""What a session's events tell of its life."""

from collections.abc import Iterable
from typing import Any

from daemon.domain.states import TRANSITIONS

_ENDS = {
    "SESSION_REVOKED": "revoked",
    "SESSION_EXPIRED": "expired",
    "SESSION_KILLED": "killed",
    "SESSION_RENEWAL_REJECTED": "rejected",
}


def told(event: dict[str, Any]) -> str:
    """Return an event in a few words."""
    kind, details = event["type"], event["details"]
    words = {name: value for name, value in details.items() if value is not None}
    ending = "".join(
        f" {name} {words[key]}" for key, name in (("exitCode", "exit"), ("signal", "signal")) if key in words
    )
    if kind == "SESSION_STATE_CHANGED":
        turn = f" {words['turn']}" if "turn" in words else ""
        return f"{details['from']}>{details['to']}{turn}{' ' + words['outcome'] if 'outcome' in words else ''}"
    if kind == "SESSION_SUSPENDED":
        return f"suspended by {details['by']}"
    if kind == "SESSION_ERROR":
        return f"error {details['reason']}{ending}"
    if kind == "SESSION_CLOSED":
        return f"closed {details['reason']}{ending}"
    if kind == "SESSION_UPDATED":
        return f"updated {' '.join(details['fields'])}"
    if kind in _ENDS:
        return " ".join([_ENDS[kind], *([str(words["reason"])] if "reason" in words else [])])
    return str(kind.removeprefix("SESSION_").lower())


def steps(events: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the steps of a session's life that its events tell; each event tells of the state before it."""
    state, found = "", list[tuple[str, str]]()
    for event in events:
        kind, details, before = event["type"], event["details"], state
        if kind == "SESSION_CREATED":
            assert state == "", "created twice"
            state = "CREATED"
            continue
        if kind == "SESSION_STATE_CHANGED":
            assert details["from"] == state, event
            state = details["to"]
        elif kind == "SESSION_STARTED":
            assert state == "READY", event
            state = "ACTIVE"
        elif kind == "SESSION_RESUMED":
            assert state == "SUSPENDED", event
            state = "READY"
        elif kind in _ENDS and state not in {"CLOSING", "CLOSED"}:
            state = "CLOSING"
        else:
            to = {"SESSION_SUSPENDED": "SUSPENDED", "SESSION_ERROR": "ERROR", "SESSION_CLOSED": "CLOSED"}
            state = to.get(kind, state)
            if kind not in to:
                continue
        assert state in TRANSITIONS[before], f"{before} to {state} is no step"  # type: ignore[index]
        found.append((before, state))
    return found
