"""The nouns as they are stored: one frozen struct a table; JSON columns keep their text."""

from typing import Literal

import msgspec

from daemon.domain.channels import ChannelType
from daemon.domain.levels import Level
from daemon.domain.states import State

SuspendedBy = Literal["owner", "kill_switch", "auto_stop"]
AgentStatus = Literal["CREATING", "ACTIVE", "SUSPENDED", "TERMINATING", "TERMINATED"]
Chain = Literal["solana", "ethereum"]
Network = Literal["mainnet", "devnet", "testnet"]
AttemptStatus = Literal["DELIVERED", "FAILED", "RATE_LIMITED", "ALL_FAILED"]
CreatedBy = Literal["api", "cli", "run", "process"]


class Agent(msgspec.Struct, frozen=True, gc=False):
    """One registered identity."""

    id: str
    name: str
    status: AgentStatus
    chain: Chain | None = None
    network: Network | None = None
    public_key: str | None = None
    owner_address: str | None = None
    owner_verified: bool = False
    metadata: str = "{}"
    created_at: int = 0
    updated_at: int = 0
    suspended_at: int | None = None
    suspension_reason: str | None = None
    suspended_by: SuspendedBy | None = None


class Session(msgspec.Struct, frozen=True, gc=False):
    """One session, but for its sealed retry answer, which only a retry needs.

    `request_count` and `last_activity` are as stored: what is not flushed yet is in `LiveSession`. Of a child, a
    session that an agent made from its own, `parent_id` is that one, `root_id` the one that the owner made, and `depth`
    the number of steps in between.
    """

    id: str
    agent_id: str
    token_hash: str
    constraints: str | None
    usage_stats: str | None
    expires_at: int
    revoked_at: int | None
    created_at: int
    renewal_count: int
    max_renewals: int
    last_renewed_at: int | None
    absolute_expires_at: int
    ttl_seconds: int
    generation: int
    previous_token_hash: str | None
    rotated_at: int | None
    owner_rotated_generation: int
    used_generation: int
    reuse_reported_at: int | None
    state: State
    state_changed_at: int | None
    started_at: int | None
    revoked_reason: str | None
    expired_at: int | None
    idle_timeout: int | None
    last_activity: int | None
    request_count: int
    user_id: str | None
    workspace_id: str | None
    metadata: str
    created_by: CreatedBy
    expiry_warned_at: int | None = None
    parent_id: str | None = None
    root_id: str | None = None
    depth: int = 0

    @property
    def tree_id(self) -> str:
        """Id of the session at the top of its tree."""
        return self.root_id or self.id

    @property
    def over(self) -> bool:
        """Whether it has ended, and its end is recorded."""
        return self.revoked_at is not None or self.expired_at is not None

    @property
    def supervised(self) -> bool:
        """Whether the daemon runs a process for it, whose end alone closes it."""
        return self.created_by == "process"


ConversationKey = tuple[str, str]
"""Agent id and conversation id."""


class Conversation(msgspec.Struct, frozen=True, gc=False):
    """One conversation of an agent, bound to the provider and model that it began with.

    Args:
        agent_id: whose it is; no other agent sees it.
        conversation_id: chosen by the client, never normalised.
        provider, model: what it is bound to.
        external_id: under which it is known elsewhere.
        session_id: the session that bound it; None once that session is deleted.
        created_at: Unix seconds; when it was bound, or began afresh.
        last_activity: Unix seconds of the last bind or touch.
        expires_at: Unix seconds; over then, unless it is used before.
        request_count: binds and touches since `created_at`.
        rebind_count: changes of provider or model since `created_at`.
    """

    agent_id: str
    conversation_id: str
    provider: str
    model: str
    external_id: str | None = None
    session_id: str | None = None
    created_at: int = 0
    last_activity: int = 0
    expires_at: int = 0
    request_count: int = 0
    rebind_count: int = 0

    @property
    def key(self) -> ConversationKey:
        """Whose it is, and which."""
        return self.agent_id, self.conversation_id


class TouchedConversation(msgspec.Struct, frozen=True, gc=False):
    """Uses of a conversation that are not stored yet.

    Args:
        agent_id, conversation_id: which.
        requests: to be added.
        last_activity, expires_at: Unix seconds; stored unless what is stored is later.
    """

    agent_id: str
    conversation_id: str
    requests: int
    last_activity: int
    expires_at: int


class Channel(msgspec.Struct, frozen=True):
    """One way to reach the owner; `config` is sealed."""

    id: str
    type: ChannelType
    name: str
    config: str
    priority: int
    min_level: Level
    events: str | None
    agents: str | None
    enabled: bool
    created_at: int
    updated_at: int

    def __repr__(self) -> str:
        return f"Channel({self.id})"


class Delivery(msgspec.Struct, frozen=True):
    """One message that the owner is still to get: a row of the outbox.

    Args:
        id: of the row; 0 before it is stored.
        seq: of the event.
        channel_id: the one channel it is for; None: the first that succeeds.
        event, level, agent_id, session_id: of the event.
        reference_id: what the event is about, for the delivery log.
        dedup_key: equal for repetitions; None where there can be none.
        created_at: Unix seconds.
        attempts: rounds that failed.
        next_attempt_at: Unix seconds.
    """

    id: int
    seq: int
    channel_id: str | None
    event: str
    level: Level
    agent_id: str | None
    session_id: str | None
    reference_id: str | None
    dedup_key: str | None
    created_at: int
    attempts: int
    next_attempt_at: int


class Settled(msgspec.Struct, frozen=True):
    """What becomes of a message of the outbox.

    Args:
        delivery_id: of the message.
        rounds: that failed so far.
        next_attempt_at: Unix seconds; None: there is nothing more to send.
    """

    delivery_id: int
    rounds: int = 0
    next_attempt_at: int | None = None


class Attempt(msgspec.Struct, frozen=True):
    """One attempt to reach the owner: a row of the delivery log."""

    id: str
    channel_id: str | None
    event: str
    level: Level
    reference_id: str | None
    status: AttemptStatus
    error: str | None
    retry_count: int
    sent_at: int


class Answer(msgspec.Struct, frozen=True):
    """What may be answered to one message: a single-use token, by its hash.

    Args:
        token_hash: SHA-256 of the token.
        channel_id: where the message went; None for a link.
        seq: of the event that the message told of.
        session_id, agent_id: of that event.
        actions: JSON list of what may be chosen.
        created_at: Unix seconds.
        reject_until: Unix seconds; rejecting is over then.
        expires_at: Unix seconds; everything is over then.
        used_at: Unix seconds.
        used_action: what was chosen.
    """

    token_hash: str
    channel_id: str | None
    seq: int
    session_id: str | None
    agent_id: str | None
    actions: str
    created_at: int
    reject_until: int | None
    expires_at: int
    used_at: int | None = None
    used_action: str | None = None

    def __repr__(self) -> str:
        return f"Answer({self.seq})"


class Verifier(msgspec.Struct, frozen=True):
    """A service that may ask whether a token is good, by the hash of its credential.

    Args:
        id: of the verifier.
        name: the owner's name for it.
        credential_hash: SHA-256 of its credential, in hex.
        may_revoke: whether it may also end sessions, by their tokens.
        created_at: Unix seconds.
        revoked_at: Unix seconds; its credential is refused since then.
        last_used_at: Unix seconds, to the minute.
    """

    id: str
    name: str
    credential_hash: str
    may_revoke: bool
    created_at: int = 0
    revoked_at: int | None = None
    last_used_at: int | None = None

    def __repr__(self) -> str:
        return f"Verifier({self.id})"
