"""Which rows a list shows; None means any."""

from typing import Literal

import msgspec

from daemon.domain.events import Severity
from daemon.domain.rows import AttemptStatus
from daemon.domain.states import State
from daemon.domain.views import Status


class SessionFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which sessions; None means any, `status` None means all but revoked ones, `top` only those that owners made."""

    agent_id: str | None = None
    status: Status | Literal["all"] | None = None
    state: State | None = None
    user_id: str | None = None
    workspace_id: str | None = None
    parent_id: str | None = None
    top: bool = False


class ConversationFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which conversations, of those that are not expired; None means any."""

    agent_id: str | None = None
    provider: str | None = None
    model: str | None = None
    session_id: str | None = None


class AttemptFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows of the delivery log; None means any."""

    status: AttemptStatus | None = None
    event: str | None = None
    channel_id: str | None = None


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events, oldest first unless `newest_first`; `after` is a sequence number, None means any."""

    after: int = 0
    type: str | None = None
    agent_id: str | None = None
    session_id: str | None = None
    severity: Severity | None = None
    newest_first: bool = False
