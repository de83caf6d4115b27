"""Objects as the API shows them: camelCase, absent values null, never a token's hash."""

from typing import Literal

import msgspec

from daemon.domain.process_views import ProcessView
from daemon.domain.rows import AgentStatus, Chain, CreatedBy, Network
from daemon.domain.states import State
from daemon.domain.view import SecretView, View

Status = Literal["ACTIVE", "EXPIRED", "REVOKED"]
LockState = Literal["NORMAL", "ACTIVATED", "RECOVERING"]


class AgentView(View):
    """A registered agent."""

    id: str
    name: str
    status: AgentStatus
    chain: Chain | None
    network: Network | None
    public_key: str | None
    owner_address: str | None
    owner_verified: bool
    owner_state: Literal["NONE", "GRACE", "LOCKED"]
    metadata: msgspec.Raw
    created_at: int
    updated_at: int
    suspended_at: int | None
    suspension_reason: str | None


class TerminatedView(View):
    """An agent that was ended for good."""

    id: str
    status: Literal["TERMINATED"]
    sessions_revoked: int


class SessionSummary(View):
    """A session as it stands in lists."""

    id: str
    agent_id: str
    status: Status
    state: State
    renewal_count: int
    max_renewals: int
    expires_at: int
    absolute_expires_at: int
    created_at: int
    last_renewed_at: int | None
    last_activity: int | None
    request_count: int


class SessionDetail(SessionSummary):
    """A whole session.

    `constraints` and `usage` are `null` as JSON where absent: msgspec cannot decode a union of Raw and None.
    """

    user_id: str | None
    workspace_id: str | None
    metadata: msgspec.Raw
    constraints: msgspec.Raw
    ttl: int
    generation: int
    reject_window_expiry: int | None
    revoked_at: int | None
    revoked_reason: str | None
    state_changed_at: int | None
    created_by: CreatedBy
    usage: msgspec.Raw
    parent_id: str | None
    depth: int
    process: ProcessView | None


class OwnSession(SessionDetail):
    """A session as its agent sees it."""

    agent_name: str
    renewable_at: int
    remaining_renewals: int


class CreatedSession(SecretView):
    """A new session; the token is shown this once."""

    id: str
    token: str
    expires_at: int
    agent_id: str
    absolute_expires_at: int
    max_renewals: int
    state: State


class CreatedChild(CreatedSession):
    """A new session below the one that asked; its token is shown this once.

    `ttl` and `constraints` are what its parent leaves of what was asked for; `depth` counts the sessions above it.
    """

    parent_id: str
    depth: int
    ttl: int
    constraints: msgspec.Raw


class SessionTree(SessionSummary):
    """A session with all that its agent made from it, newest first."""

    depth: int
    children: list["SessionTree"]


class RevokedSession(View):
    """A session that was ended; `message` only where it had been ended before."""

    id: str
    status: Literal["REVOKED"]
    revoked_at: int
    message: str | msgspec.UnsetType = msgspec.UNSET


class RotatedSession(SecretView):
    """A session's new token, shown this once."""

    id: str
    token: str
    expires_at: int


class ExtendedSession(View):
    """A session that was given more time."""

    id: str
    expires_at: int


class RenewedSession(SecretView):
    """The next generation of a session's token."""

    id: str
    token: str
    expires_at: int
    renewal_count: int
    max_renewals: int
    absolute_expires_at: int
    last_renewed_at: int


class Ticket(SecretView):
    """An owner ticket, shown this once."""

    ticket: str
    expires_at: int


class LoggedOut(View):
    """How many owner tickets were ended."""

    tickets_revoked: int


class RotatedSecret(View):
    """A new signing secret is in use."""

    rotated_at: int
    previous_expires_at: int


class PasswordSet(View):
    """The master password was changed."""

    changed_at: int


class Swept(View):
    """What a run of the sweeper did."""

    expired: int
    deleted: int


class Check(View):
    """One part of the daemon's health; degraded: it does its work in another way."""

    status: Literal["ok", "degraded", "failed"]
    detail: str | None = None


class Health(View):
    """Whether the daemon can do its work."""

    status: Literal["ok", "degraded"]
    version: str
    uptime: int
    pid: int
    schema_version: int
    kill_switch: LockState
    active_session_count: int | None
    checks: dict[str, Check]


class Backlog(View):
    """Messages that wait to be sent; `failed`: how many of them failed at least once."""

    pending: int
    failed: int


class ProviderCount(View):
    """How many conversations are bound to a provider's model, and how often those were rebound."""

    provider: str
    model: str
    conversations: int
    rebinds: int


class EngineStatus(View):
    """Where rows live."""

    kind: str
    size_bytes: int
    schema_version: int


class WorkerStatus(View):
    """A background task."""

    name: str
    last_run: int | None
    last_error: str | None


class AdminStatus(View):
    """The daemon at a glance."""

    status: Literal["ok", "degraded"]
    version: str
    uptime: int
    pid: int
    agent_count: int
    active_session_count: int
    kill_switch: LockState
    engine: EngineStatus
    workers: list[WorkerStatus]
    notifications: Backlog


class ChainHead(View):
    """The newest event of the audit log; seq 0 and 64 zeros while it is empty."""

    seq: int
    hash: str


class Verification(View):
    """Whether the audit log's hash chain is whole; `firstBad` is the first event that does not fit."""

    valid: bool
    events: int
    head: ChainHead
    first_bad: int | None


class Backup(View):
    """A copy of the database; `path` is on the daemon's machine."""

    path: str
    size_bytes: int
    sha256: str


class KillSwitchView(View):
    """Whether everything is stopped; the counts are of the last activation."""

    state: LockState
    reason: str | None = None
    activated_at: int | None = None
    recovery_eligible_at: int | None = None
    sessions_revoked: int = 0
    agents_suspended: int = 0
    processes_killed: int = 0
    processes_left: int = 0


class Recovery(View):
    """How far the recovery from the kill switch is; the rest is absent where it does not apply."""

    state: LockState
    agents_reactivated: int | msgspec.UnsetType = msgspec.UNSET
    recovery_eligible_at: int | msgspec.UnsetType = msgspec.UNSET


class PublishedEvent(View):
    """An event of the agent's was recorded under this sequence number."""

    seq: int


class Stopping(View):
    """The daemon is about to stop."""

    status: Literal["stopping"]
