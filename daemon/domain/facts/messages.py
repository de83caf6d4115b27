"""Facts about channels, messages and the owner's answers."""

from typing import ClassVar

from daemon.domain.events import Fact, Severity


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
