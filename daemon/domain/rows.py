"""The nouns as they are stored: one frozen struct a table; JSON columns keep their text."""

from typing import Literal

import msgspec

from daemon.domain.states import State

AgentStatus = Literal["CREATING", "ACTIVE", "SUSPENDED", "TERMINATING", "TERMINATED"]
Chain = Literal["solana", "ethereum"]
Network = Literal["mainnet", "devnet", "testnet"]
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


class Session(msgspec.Struct, frozen=True, gc=False):
    """One session, but for its sealed retry answer, which only a retry needs.

    `request_count` and `last_activity` are as stored: what is not flushed yet is in `LiveSession`.
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
