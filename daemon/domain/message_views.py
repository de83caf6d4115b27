"""Channels, messages and reject links as the API shows them."""

from typing import Any, Literal

from daemon.domain.channels import ChannelType
from daemon.domain.levels import Level
from daemon.domain.rows import AttemptStatus
from daemon.domain.view import View

ChannelHealth = Literal["unknown", "ok", "failing", "unreadable"]


class ChannelView(View):
    """A notification channel; credentials are `***`, and `config` is null where they cannot be read."""

    id: str
    type: ChannelType
    name: str
    config: dict[str, Any] | None
    priority: int
    min_level: Level
    events: list[str] | None
    agents: list[str] | None
    enabled: bool
    health: ChannelHealth
    last_error: str | None
    created_at: int
    updated_at: int


class ChannelTest(View):
    """What a channel's service said to a test message."""

    status: AttemptStatus
    error: str | None


class AttemptView(View):
    """One attempt to reach the owner."""

    id: str
    channel_id: str | None
    event: str
    level: Level
    reference_id: str | None
    status: AttemptStatus
    error: str | None
    retry_count: int
    sent_at: int


class Rejectable(View):
    """What a reject link would end."""

    session_id: str
    agent_name: str
    renewal_count: int
    max_renewals: int
    last_renewed_at: int | None
    reject_until: int
