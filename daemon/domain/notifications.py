"""Notifications: which facts the owner is told, how urgently, and what a message is made of."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import msgspec

from daemon.domain.events import Event, Fact
from daemon.domain.facts.agents import PUBLISHED, Published
from daemon.domain.facts.messages import OwnerAnswered
from daemon.domain.facts.sessions import BudgetWarning, SessionCreated, SessionError, SessionSuspended
from daemon.domain.levels import LEVELS, Level
from daemon.domain.rows import Channel, Delivery

EVENTS: dict[str, Level] = {
    "SESSION_CREATED": "INFO",
    "SESSION_REVOKED": "INFO",
    "SESSION_RENEWED": "INFO",
    "SESSION_EXPIRED": "INFO",
    "SECRET_ROTATED": "INFO",
    "DAILY_SUMMARY": "INFO",
    "TX_NOTIFY": "INFO",
    "TX_DELAY_QUEUED": "INFO",
    "TX_DELAY_EXECUTED": "INFO",
    "TX_CONFIRMED": "INFO",
    "AGENT_REPORT": "INFO",
    "SESSION_RENEWAL_REJECTED": "WARNING",
    "SESSION_EXPIRING_SOON": "WARNING",
    "SESSION_ERROR": "WARNING",
    "SESSION_SUSPENDED": "WARNING",
    "BUDGET_WARNING": "WARNING",
    "KILL_SWITCH_RECOVERING": "WARNING",
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

_IN_BULK = frozenset(
    {"kill_switch", "secret_rotated", "clock_reset", "restored", "agent_terminated", "shutdown", "parent_ended"}
)
"""Reasons for which sessions are revoked together: the cause is told, not each of its thousand effects."""

_STOPPED_BY_LIMITS = frozenset({"budget", "output"})
"""What suspends a session until the owner does something."""

TIMES = frozenset(
    {"rejectWindowExpiry", "rejectedAt", "expiresAt", "absoluteExpiresAt", "expiredAt", "recoveryEligibleAt"}
)
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
    if isinstance(fact, SessionCreated) and fact.parent_id is not None:  # an agent may make hundreds
        return None
    if fact.type == "OWNER_ANSWERED" and getattr(fact, "outcome", None) != "not_allowed":
        return None
    if isinstance(fact, SessionError) and fact.restart_at is not None:  # told when it is given up
        return None
    if isinstance(fact, SessionSuspended) and fact.by not in _STOPPED_BY_LIMITS:
        return None
    return EVENTS.get(fact.type)


def reference_of(fact: Fact) -> str | None:
    """Return what a fact is about, for the delivery log: its own reference, its session, or its agent."""
    for name in ("reference_id", "channel_id", "date"):
        if (value := getattr(fact, name, None)) is not None:
            return str(value)
    return fact.session_id or fact.agent_id


def _dedup_key(fact: Fact, seq: int) -> str:
    """Return `event:referenceId:generation`; where there is no reference every event is another."""
    reference = reference_of(fact)
    if isinstance(fact, SessionError | SessionSuspended | BudgetWarning):  # each time its owner has acted in between
        return f"{fact.type}:#{seq}"
    if reference is None or (isinstance(fact, Published) and fact.reference_id is None):
        return f"{fact.type}:#{seq}"
    if isinstance(fact, Published):  # what one agent calls its reference must not silence another's
        reference = f"{fact.session_id}/{reference}"
    if isinstance(fact, OwnerAnswered):
        reference = f"{reference}/{fact.who}"
    return f"{fact.type}:{reference}:{getattr(fact, 'generation', '')}"


def takes(channel: Channel, level: Level, event: str, agent_id: str | None, reference_id: str | None) -> bool:
    """Return whether a channel is to be told of an event by its own filters; `agents` chooses among events of agents.

    Args:
        channel: enabled or not.
        level, event, agent_id, reference_id: of the event.
    """
    if not channel.enabled or LEVELS.index(level) < LEVELS.index(channel.min_level):
        return False
    if event == "CHANNEL_UNREACHABLE" and reference_id == channel.id:
        return False
    events, agents = _words(channel.events), _words(channel.agents)
    return (events is None or event in events) and (agents is None or agent_id is None or agent_id in agents)


@lru_cache(256)
def _words(text: str | None) -> frozenset[str] | None:
    return frozenset(msgspec.json.decode(text, type=list[str])) if text else None


def deliveries(fact: Fact, seq: int, now: int, channels: Sequence[Channel]) -> list[Delivery]:
    """Return the rows of the outbox that a fact makes: one for each channel if it is CRITICAL, else one for the first.

    Args:
        fact: what happened.
        seq: its sequence number.
        now: Unix seconds.
        channels: every channel there is.
    """
    level = level_of(fact)
    if level is None:
        return []
    reference = reference_of(fact)
    taking = [one.id for one in channels if takes(one, level, fact.type, fact.agent_id, reference)]
    if not taking:
        return []
    critical = level == "CRITICAL"
    return [
        Delivery(
            id=0,
            seq=seq,
            channel_id=channel_id,
            event=fact.type,
            level=level,
            agent_id=fact.agent_id,
            session_id=fact.session_id,
            reference_id=reference,
            dedup_key=None if critical else _dedup_key(fact, seq),
            created_at=now,
            attempts=0,
            next_attempt_at=now,
        )
        for channel_id in (taking if critical else [None])
    ]


def actions_of(event: str, agent_id: str | None) -> tuple[Action, ...]:
    """Return the answers that a message about this event offers: none grants or restores anything."""
    if event == "SESSION_RENEWED":
        return ("keep", "reject", "suspend_agent", "kill_switch")
    if event in _ANSWERABLE and agent_id is not None:
        return ("suspend_agent", "kill_switch")
    return ("kill_switch",) if event in {"MASTER_AUTH_LOCKED", "OWNER_ANSWERED"} else ()


_ANSWERABLE = frozenset(PUBLISHED) | {
    "SESSION_CREATED",
    "SESSION_EXPIRING_SOON",
    "SESSION_ERROR",
    "SESSION_SUSPENDED",
    "BUDGET_WARNING",
    "CONSTRAINT_VIOLATED",
    "TOKEN_REUSED",
}
"""Events of a living agent, other than a renewal."""


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
