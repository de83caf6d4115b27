"""Notifications: which facts the owner is told, how urgently, and what a message is made of."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import msgspec

from daemon.domain.events import Event, Fact

Level = Literal["INFO", "WARNING", "CRITICAL"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""From the least to the most urgent."""

EVENTS: dict[str, Level] = {
    "SESSION_CREATED": "INFO",
    "SESSION_REVOKED": "INFO",
    "SESSION_RENEWED": "INFO",
    "SESSION_EXPIRED": "INFO",
    "DAILY_SUMMARY": "INFO",
    "TX_NOTIFY": "INFO",
    "TX_DELAY_QUEUED": "INFO",
    "TX_DELAY_EXECUTED": "INFO",
    "TX_CONFIRMED": "INFO",
    "AGENT_REPORT": "INFO",
    "SESSION_RENEWAL_REJECTED": "WARNING",
    "SESSION_EXPIRING_SOON": "WARNING",
    "SESSION_ERROR": "WARNING",
    "BUDGET_WARNING": "WARNING",
    "KILL_SWITCH_RECOVERED": "WARNING",
    "TX_APPROVAL_REQUEST": "WARNING",
    "TX_APPROVAL_EXPIRED": "WARNING",
    "TX_FAILED": "WARNING",
    "CONSTRAINT_VIOLATED": "WARNING",
    "OWNER_ANSWERED": "WARNING",
    "CHANNEL_UNREACHABLE": "WARNING",
    "KILL_SWITCH_ACTIVATED": "CRITICAL",
    "AUTO_STOP_TRIGGERED": "CRITICAL",
    "MASTER_AUTH_LOCKED": "CRITICAL",
    "TOKEN_REUSED": "CRITICAL",
}
"""Every event that the owner may be told, with its level."""

_IN_BULK = frozenset({"kill_switch", "secret_rotated", "clock_reset", "restored", "agent_terminated"})
"""Reasons for which sessions are revoked together: the cause is told, not each of its thousand effects."""

TIMES = frozenset({"rejectWindowExpiry", "rejectedAt", "expiresAt", "absoluteExpiresAt", "expiredAt", "at"})
"""Context fields that are Unix seconds."""

Action = Literal["keep", "reject", "suspend_agent", "kill_switch"]
Outcome = Literal[
    "kept",
    "rejected",
    "agent_suspended",
    "kill_switch_activated",
    "already_done",
    "already_answered",
    "not_allowed",
    "unknown",
]
"""What came of a press; `already_done`: what was asked for had happened before; `unknown`: a dead or foreign button."""


class Button(msgspec.Struct, frozen=True):
    """One answer that a message offers; its token acts once."""

    action: Action
    token: str

    def __repr__(self) -> str:
        return f"Button({self.action})"


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One message to one channel, before it is rendered.

    Args:
        id: the same at every attempt to deliver it.
        event: the type of the event, or `TEST`.
        level: of the event.
        at: when it happened, Unix seconds.
        context: the event's fields by their camelCase names; those in `TIMES` are Unix seconds.
        reject_url: link that shows the renewal and lets the owner reject it.
        buttons: what may be answered from the phone.
    """

    id: str
    event: str
    level: Level
    at: int
    context: dict[str, Any]
    reject_url: str | None = None
    buttons: tuple[Button, ...] = ()

    def __repr__(self) -> str:
        return f"Notice({self.id})"


class Press(msgspec.Struct, frozen=True, kw_only=True):
    """A button that somebody pressed.

    Args:
        token: what the button carried.
        allowed: whether it came from where the owner's answers come from.
        who: the service's name of the presser, for the audit log.
        reference: what the service wants to be told the outcome with.
    """

    token: str
    allowed: bool
    who: str
    reference: Any = None

    def __repr__(self) -> str:
        return f"Press({self.who})"


def level_of(fact: Fact) -> Level | None:
    """Return how urgently the owner is told of a fact; None: not at all."""
    if fact.type == "SESSION_REVOKED" and getattr(fact, "reason", None) in _IN_BULK:
        return None
    if fact.type == "OWNER_ANSWERED" and getattr(fact, "outcome", None) != "not_allowed":
        return None
    return EVENTS.get(fact.type)


def wants(
    level: Level, event: str, agent_id: str | None, *, least: Level, events: Sequence[str], agents: Sequence[str]
) -> bool:
    """Return whether a channel with these filters takes an event; an empty list takes any.

    Args:
        level, event, agent_id: of the event.
        least, events, agents: the channel's `minLevel`, `events` and `agents`.
    """
    if LEVELS.index(level) < LEVELS.index(least):
        return False
    if events and event not in events:
        return False
    return not agents or agent_id in agents


def actions_of(event: str, agent_id: str | None) -> tuple[Action, ...]:
    """Return the answers that a message about this event offers: none grants or restores anything."""
    if event == "SESSION_RENEWED":
        return ("keep", "reject", "suspend_agent", "kill_switch")
    if event in _ANSWERABLE and agent_id is not None:
        return ("suspend_agent", "kill_switch")
    return ("kill_switch",) if event in {"MASTER_AUTH_LOCKED", "OWNER_ANSWERED"} else ()


_ANSWERABLE = frozenset(EVENTS) - {
    "SESSION_REVOKED", "SESSION_EXPIRED", "SESSION_RENEWAL_REJECTED", "DAILY_SUMMARY", "CHANNEL_UNREACHABLE",
    "KILL_SWITCH_ACTIVATED", "KILL_SWITCH_RECOVERED", "AUTO_STOP_TRIGGERED", "MASTER_AUTH_LOCKED", "OWNER_ANSWERED",
}  # fmt: skip


def context_of(event: Event, agent_name: str | None) -> dict[str, Any]:
    """Return the fields that a message about an event may show: who and which first, then the event's own.

    Args:
        event: as it stands in the audit log.
        agent_name: of its agent, where there is one.
    """
    details: dict[str, Any] = msgspec.json.decode(event.details)
    context: dict[str, Any] = {"sessionId": event.session_id, "agentId": event.agent_id, "agentName": agent_name}
    if event.type == "SESSION_RENEWED":
        left = max(0, details["absoluteExpiresAt"] - event.timestamp)
        context["remainingAbsoluteLife"] = life(left)
    return {**{name: value for name, value in context.items() if value is not None}, **details}


def life(seconds: int) -> str:
    """Return a remaining life in days and hours as the owner reads it: `27d 12h`; under an hour in minutes."""
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3_600)
    if days:
        return f"{days}d {hours}h"
    return f"{hours}h {rest // 60}m" if hours else f"{rest // 60}m"
