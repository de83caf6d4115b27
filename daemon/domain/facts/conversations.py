"""Facts about conversations."""

from typing import ClassVar

import msgspec

from daemon.domain.events import Fact


class Binding(msgspec.Struct, frozen=True):
    """What a conversation is bound to."""

    provider: str
    model: str


class ConversationBound(Fact, frozen=True, kw_only=True):
    """A conversation began, or began afresh, with a provider and model."""

    type: ClassVar[str] = "CONVERSATION_BOUND"
    conversation_id: str
    provider: str
    model: str
    external_id: str | None


class ConversationRebound(Fact, frozen=True, kw_only=True):
    """A conversation goes on with another provider or model."""

    type: ClassVar[str] = "CONVERSATION_REBOUND"
    conversation_id: str
    from_binding: Binding = msgspec.field(name="from")
    to_binding: Binding = msgspec.field(name="to")
    reason: str


class ConversationDeleted(Fact, frozen=True, kw_only=True):
    """An agent deleted a conversation."""

    type: ClassVar[str] = "CONVERSATION_DELETED"
    conversation_id: str
