"""Facts about sessions and their tokens."""

from typing import ClassVar, Literal

import msgspec

from daemon.domain.events import Fact, Severity
from daemon.domain.process_rows import Suspender
from daemon.domain.states import State


class SessionCreated(Fact, frozen=True, kw_only=True):
    """A session was made; unless it waits for its process, it passed CREATED and INITIALIZING and is READY.

    Args:
        expires_at, absolute_expires_at: Unix seconds.
        max_renewals: how often it may be renewed.
        created_by: through which door it was asked for.
        parent_id: of a child, the session that its agent made it from.
    """

    type: ClassVar[str] = "SESSION_CREATED"
    expires_at: int
    absolute_expires_at: int
    max_renewals: int
    created_by: str
    parent_id: str | None = None


class SessionStarted(Fact, frozen=True, kw_only=True):
    """A session was used for the first time: READY to ACTIVE."""

    type: ClassVar[str] = "SESSION_STARTED"


class SessionStateChanged(Fact, frozen=True, kw_only=True):
    """A session changed its life-cycle state in a way that has no event of its own.

    Args:
        from_state, to_state: before and after.
        turn: of a supervised session, the one that began or is over.
        outcome: how it ended.
    """

    type: ClassVar[str] = "SESSION_STATE_CHANGED"
    from_state: State = msgspec.field(name="from")
    to_state: State = msgspec.field(name="to")
    turn: int | None = None
    outcome: str | None = None


class SessionUpdated(Fact, frozen=True, kw_only=True):
    """Attributes of a session changed, or its process, or the turns that wait.

    Args:
        fields: which.
        turn: one that is over while its session is suspended.
        outcome: how it ended.
    """

    type: ClassVar[str] = "SESSION_UPDATED"
    fields: tuple[str, ...]
    turn: int | None = None
    outcome: str | None = None


class SessionSuspended(Fact, frozen=True, kw_only=True):
    """A session's token is refused until the session is resumed; told where its budget or its output is the reason.

    Args:
        reason: the owner's words, or what stopped it.
        by: the owner, or which limit.
    """

    type: ClassVar[str] = "SESSION_SUSPENDED"
    reason: str | None = None
    by: Suspender = "owner"


class SessionResumed(Fact, frozen=True, kw_only=True):
    """A suspended session may be used again."""

    type: ClassVar[str] = "SESSION_RESUMED"
    reason: str | None = None


class SessionRenewed(Fact, frozen=True, kw_only=True):
    """An agent exchanged its token for the next generation."""

    type: ClassVar[str] = "SESSION_RENEWED"
    renewal_count: int
    max_renewals: int
    generation: int
    expires_at: int
    absolute_expires_at: int
    reject_window_expiry: int


class SessionRotated(Fact, frozen=True, kw_only=True):
    """The owner replaced a session's token."""

    type: ClassVar[str] = "SESSION_ROTATED"
    generation: int


class SessionRenewalRejected(Fact, frozen=True, kw_only=True):
    """The owner revoked a session because of a renewal."""

    type: ClassVar[str] = "SESSION_RENEWAL_REJECTED"
    severity: ClassVar[Severity] = "warning"
    renewal_count: int
    rejected_at: int


class SessionExtended(Fact, frozen=True, kw_only=True):
    """The owner gave a session more time."""

    type: ClassVar[str] = "SESSION_EXTENDED"
    expires_at: int


class SessionRevoked(Fact, frozen=True, kw_only=True):
    """A session was ended before its time."""

    type: ClassVar[str] = "SESSION_REVOKED"
    reason: str


class SessionExpired(Fact, frozen=True, kw_only=True):
    """A session ran out; `reason` is `ttl` or `idle`."""

    type: ClassVar[str] = "SESSION_EXPIRED"
    expired_at: int
    reason: Literal["ttl", "idle"]


class SessionExpiringSoon(Fact, frozen=True, kw_only=True):
    """A session nears the end of what renewals can give it; told once."""

    type: ClassVar[str] = "SESSION_EXPIRING_SOON"
    severity: ClassVar[Severity] = "warning"
    expires_at: int
    absolute_expires_at: int
    remaining_renewals: int


class SessionClosed(Fact, frozen=True, kw_only=True):
    """A session's life is over; of a supervised one, nothing of its process is left.

    Args:
        reason, exit_code, signal: how its process ended, where it had one.
        turn: the one that ended with it, if one ran.
        outcome: how, as far as anybody knows.
    """

    type: ClassVar[str] = "SESSION_CLOSED"
    reason: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    turn: int | None = None
    outcome: str | None = None


class SessionKilled(Fact, frozen=True, kw_only=True):
    """The owner ended a supervised session without grace."""

    type: ClassVar[str] = "SESSION_KILLED"
    reason: str | None


class SessionError(Fact, frozen=True, kw_only=True):
    """A session's process failed; told when it is not started again.

    Args:
        reason, exit_code, signal: how.
        restarts: begun so far.
        restart_at: Unix seconds; when it is started again, None: not by itself.
        turn: the one that ended with it, if one ran that its process had got.
        outcome: how, as far as anybody knows.
    """

    type: ClassVar[str] = "SESSION_ERROR"
    severity: ClassVar[Severity] = "warning"
    reason: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    restarts: int = 0
    restart_at: int | None = None
    turn: int | None = None
    outcome: str | None = None


class BudgetWarning(Fact, frozen=True, kw_only=True):
    """A session has used most of its budget; at the whole of it, it is suspended.

    Args:
        budget: which.
        used, limit: USD, or tokens.
    """

    type: ClassVar[str] = "BUDGET_WARNING"
    severity: ClassVar[Severity] = "warning"
    budget: Literal["maxCostUsd", "maxTokens"]
    used: float
    limit: float


class SessionsPurged(Fact, frozen=True, kw_only=True):
    """The sweeper deleted sessions that ended longer ago than the retention time."""

    type: ClassVar[str] = "SESSIONS_PURGED"
    count: int


class TokenReused(Fact, frozen=True, kw_only=True):
    """A superseded token was presented again: it may have been stolen (RFC 9700, section 4.14.2)."""

    type: ClassVar[str] = "TOKEN_REUSED"
    severity: ClassVar[Severity] = "critical"
    generation: int | None
    current_generation: int
    action: str


class ConstraintViolated(Fact, frozen=True, kw_only=True):
    """An agent tried what a constraint forbids; `count` breaches since the last such event."""

    type: ClassVar[str] = "CONSTRAINT_VIOLATED"
    severity: ClassVar[Severity] = "warning"
    constraint: str
    operation: str
    count: int
