"""Facts: what happened, one frozen struct each; `chain.py` makes their order tamper-evident."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import msgspec

from daemon.domain.states import State

Severity = Literal["info", "warning", "critical"]


class Fact(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Something that happened; fields beyond the two ids are the event's `details`."""

    type: ClassVar[str]
    severity: ClassVar[Severity] = "info"

    agent_id: str | None = None
    session_id: str | None = None


class Origin(msgspec.Struct, frozen=True):
    """Who caused a change, for its events.

    Args:
        actor: `owner`, `agent:<id>`, `system` or `cli`.
        request_id: of the HTTP request, if there was one.
        ip_address: the peer's; None over the unix socket.
    """

    actor: str
    request_id: str | None = None
    ip_address: str | None = None


SYSTEM = Origin("system")


def kinds() -> Iterator[type[Fact]]:
    """Yield every kind of fact that can happen, in the order of their definition."""
    waiting: list[type[Fact]] = [Fact]
    while waiting:
        kind = waiting.pop(0)
        below = kind.__subclasses__()
        waiting[:0] = below
        if not below:
            yield kind


class Event(msgspec.Struct, frozen=True, rename="camel"):
    """A fact as it stands in the audit log; `details` is the stored JSON text, untouched."""

    seq: int
    timestamp: int
    type: str
    severity: Severity
    actor: str
    agent_id: str | None
    session_id: str | None
    request_id: str | None
    ip_address: str | None
    details: msgspec.Raw
    prev_hash: str
    hash: str


_encode = msgspec.json.Encoder().encode
_IDS = ("agent_id", "session_id")


def details_text(fact: Fact) -> str:
    """Return the fact's own fields as JSON text, camelCase, in the order of their definition."""
    pairs = zip(fact.__struct_fields__, fact.__struct_encode_fields__, strict=True)
    details: dict[str, Any] = {name: getattr(fact, field) for field, name in pairs if field not in _IDS}
    return _encode(details).decode()


# --- agents


class AgentCreated(Fact, frozen=True, kw_only=True):
    """An agent was registered."""

    type: ClassVar[str] = "AGENT_CREATED"
    name: str


class AgentUpdated(Fact, frozen=True, kw_only=True):
    """Attributes of an agent changed."""

    type: ClassVar[str] = "AGENT_UPDATED"
    fields: tuple[str, ...]


class AgentSuspended(Fact, frozen=True, kw_only=True):
    """An agent's tokens are refused until it is activated."""

    type: ClassVar[str] = "AGENT_SUSPENDED"
    reason: str | None


class AgentActivated(Fact, frozen=True, kw_only=True):
    """An agent's tokens are accepted again."""

    type: ClassVar[str] = "AGENT_ACTIVATED"
    reason: str | None


class AgentTerminated(Fact, frozen=True, kw_only=True):
    """An agent ended for good."""

    type: ClassVar[str] = "AGENT_TERMINATED"
    sessions_revoked: int


# --- sessions


class SessionCreated(Fact, frozen=True, kw_only=True):
    """A session was made; it passed CREATED and INITIALIZING and is READY."""

    type: ClassVar[str] = "SESSION_CREATED"
    expires_at: int
    absolute_expires_at: int
    max_renewals: int
    created_by: str


class SessionStarted(Fact, frozen=True, kw_only=True):
    """A session was used for the first time: READY to ACTIVE."""

    type: ClassVar[str] = "SESSION_STARTED"


class SessionStateChanged(Fact, frozen=True, kw_only=True):
    """A session changed its life-cycle state in a way that has no event of its own."""

    type: ClassVar[str] = "SESSION_STATE_CHANGED"
    from_state: State = msgspec.field(name="from")
    to_state: State = msgspec.field(name="to")


class SessionUpdated(Fact, frozen=True, kw_only=True):
    """The owner changed attributes of a session."""

    type: ClassVar[str] = "SESSION_UPDATED"
    fields: tuple[str, ...]


class SessionSuspended(Fact, frozen=True, kw_only=True):
    """A session's token is refused until the session is resumed."""

    type: ClassVar[str] = "SESSION_SUSPENDED"
    reason: str | None


class SessionResumed(Fact, frozen=True, kw_only=True):
    """A suspended session may be used again."""

    type: ClassVar[str] = "SESSION_RESUMED"
    reason: str | None


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
    """A session's life is over."""

    type: ClassVar[str] = "SESSION_CLOSED"


class SessionError(Fact, frozen=True, kw_only=True):
    """A session failed."""

    type: ClassVar[str] = "SESSION_ERROR"
    severity: ClassVar[Severity] = "warning"
    reason: str | None


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


class AutoStopTriggered(Fact, frozen=True, kw_only=True):
    """An agent was suspended: incidents in `minutes` distinct minutes of an hour reached the threshold."""

    type: ClassVar[str] = "AUTO_STOP_TRIGGERED"
    severity: ClassVar[Severity] = "critical"
    minutes: int
    threshold: int


# --- what agents publish


class Published(Fact, frozen=True, kw_only=True):
    """Base of what an agent tells of its own work; every field is the agent's word."""

    type: ClassVar[str] = ""
    reference_id: str | None
    title: str | None
    details: dict[str, Any]


class TxNotify(Published, frozen=True, kw_only=True):
    """An agent tells of a transaction."""

    type: ClassVar[str] = "TX_NOTIFY"


class TxDelayQueued(Published, frozen=True, kw_only=True):
    """An agent's transaction waits for its delay to pass."""

    type: ClassVar[str] = "TX_DELAY_QUEUED"


class TxDelayExecuted(Published, frozen=True, kw_only=True):
    """An agent's delayed transaction was executed."""

    type: ClassVar[str] = "TX_DELAY_EXECUTED"


class TxApprovalRequest(Published, frozen=True, kw_only=True):
    """An agent asks the owner to approve a transaction."""

    type: ClassVar[str] = "TX_APPROVAL_REQUEST"
    severity: ClassVar[Severity] = "warning"


class TxApprovalExpired(Published, frozen=True, kw_only=True):
    """An agent's request for approval ran out."""

    type: ClassVar[str] = "TX_APPROVAL_EXPIRED"
    severity: ClassVar[Severity] = "warning"


class TxConfirmed(Published, frozen=True, kw_only=True):
    """An agent's transaction was confirmed."""

    type: ClassVar[str] = "TX_CONFIRMED"


class TxFailed(Published, frozen=True, kw_only=True):
    """An agent's transaction failed."""

    type: ClassVar[str] = "TX_FAILED"
    severity: ClassVar[Severity] = "warning"


class AgentReport(Published, frozen=True, kw_only=True):
    """An agent reports."""

    type: ClassVar[str] = "AGENT_REPORT"


PUBLISHED: dict[str, type[Published]] = {kind.type: kind for kind in Published.__subclasses__()}
"""What agents may publish, by its type."""


# --- the owner and the daemon


class MasterAuthFailed(Fact, frozen=True, kw_only=True):
    """A wrong master password was sent."""

    type: ClassVar[str] = "MASTER_AUTH_FAILED"
    severity: ClassVar[Severity] = "warning"
    failures: int


class MasterAuthLocked(Fact, frozen=True, kw_only=True):
    """Owner routes are locked after too many wrong passwords."""

    type: ClassVar[str] = "MASTER_AUTH_LOCKED"
    severity: ClassVar[Severity] = "critical"
    seconds: int


class PasswordChanged(Fact, frozen=True, kw_only=True):
    """The master password was set or changed."""

    type: ClassVar[str] = "PASSWORD_CHANGED"
    initial: bool


class OwnerLogin(Fact, frozen=True, kw_only=True):
    """An owner ticket was issued."""

    type: ClassVar[str] = "OWNER_LOGIN"
    expires_at: int


class SecretRotated(Fact, frozen=True, kw_only=True):
    """The signing secret was replaced."""

    type: ClassVar[str] = "SECRET_ROTATED"
    previous_expires_at: int
    sessions_revoked: int


class KillSwitchActivated(Fact, frozen=True, kw_only=True):
    """Everything was stopped."""

    type: ClassVar[str] = "KILL_SWITCH_ACTIVATED"
    severity: ClassVar[Severity] = "critical"
    reason: str
    sessions_revoked: int
    agents_suspended: int


class KillSwitchRecovering(Fact, frozen=True, kw_only=True):
    """The owner asked for recovery, and has to wait for it."""

    type: ClassVar[str] = "KILL_SWITCH_RECOVERING"
    severity: ClassVar[Severity] = "warning"
    recovery_eligible_at: int


class KillSwitchRecovered(Fact, frozen=True, kw_only=True):
    """The kill switch is off again."""

    type: ClassVar[str] = "KILL_SWITCH_RECOVERED"
    severity: ClassVar[Severity] = "warning"
    agents_reactivated: int


class ChannelAdded(Fact, frozen=True, kw_only=True):
    """A notification channel was added."""

    type: ClassVar[str] = "CHANNEL_ADDED"
    channel_id: str
    kind: str
    name: str


class ChannelUpdated(Fact, frozen=True, kw_only=True):
    """Attributes of a notification channel changed."""

    type: ClassVar[str] = "CHANNEL_UPDATED"
    channel_id: str
    fields: tuple[str, ...]


class ChannelDisabled(Fact, frozen=True, kw_only=True):
    """A notification channel is not used any more."""

    type: ClassVar[str] = "CHANNEL_DISABLED"
    channel_id: str
    name: str


class ChannelUnreachable(Fact, frozen=True, kw_only=True):
    """A notification channel failed its health check three times in a row."""

    type: ClassVar[str] = "CHANNEL_UNREACHABLE"
    severity: ClassVar[Severity] = "warning"
    channel_id: str
    channel: str
    reason: str


class NotificationFailed(Fact, frozen=True, kw_only=True):
    """No channel could tell the owner of an event in all the time there was; `event_seq` is the event."""

    type: ClassVar[str] = "NOTIFICATION_FAILED"
    severity: ClassVar[Severity] = "critical"
    event_type: str
    event_seq: int
    channel_id: str | None
    attempts: int


class OwnerAnswered(Fact, frozen=True, kw_only=True):
    """Somebody answered a message: `answer` was asked for, `outcome` is what came of it."""

    type: ClassVar[str] = "OWNER_ANSWERED"
    severity: ClassVar[Severity] = "warning"
    channel_id: str | None
    channel: str
    answer: str
    outcome: str
    who: str


class DailySummary(Fact, frozen=True, kw_only=True):
    """What happened since the summary before."""

    type: ClassVar[str] = "DAILY_SUMMARY"
    date: str
    active_sessions: int
    created: int
    renewed: int
    rejected: int
    revoked: int
    expired: int
    warnings: int
    criticals: int


class ConfigReloaded(Fact, frozen=True, kw_only=True):
    """The configuration was read again."""

    type: ClassVar[str] = "CONFIG_RELOADED"
    applied: tuple[str, ...]
    ignored: tuple[str, ...]


class BackupCreated(Fact, frozen=True, kw_only=True):
    """A copy of the database was made; `path` is the name of its file."""

    type: ClassVar[str] = "BACKUP_CREATED"
    path: str
    size_bytes: int
    sha256: str


class BackupRestored(Fact, frozen=True, kw_only=True):
    """A backup took the place of the database; `replacedSeq` and `replacedHash` are the head that it replaced."""

    type: ClassVar[str] = "BACKUP_RESTORED"
    severity: ClassVar[Severity] = "warning"
    backup_sha256: str
    replaced_seq: int | None
    replaced_hash: str | None
    sessions_revoked: int


class AuditArchived(Fact, frozen=True, kw_only=True):
    """The oldest events were moved to a file; the log now begins after `throughSeq`."""

    type: ClassVar[str] = "AUDIT_ARCHIVED"
    events: int
    through_seq: int
    through_hash: str
    file: str
    sha256: str


class DaemonStarted(Fact, frozen=True, kw_only=True):
    """The daemon started."""

    type: ClassVar[str] = "DAEMON_STARTED"
    version: str
    pid: int


class DaemonStopped(Fact, frozen=True, kw_only=True):
    """The daemon stopped in good order."""

    type: ClassVar[str] = "DAEMON_STOPPED"
    uptime: int
