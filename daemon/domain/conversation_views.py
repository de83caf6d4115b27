"""Conversations as the API shows them."""

import msgspec

from daemon.domain.conversations import Bound
from daemon.domain.events import Event
from daemon.domain.facts.conversations import Binding
from daemon.domain.rows import Conversation
from daemon.domain.view import View
from daemon.domain.views import ProviderCount


class BoundConversation(View):
    """What a conversation is bound to; `matched`: whether that is the provider and model that were asked for."""

    conversation_id: str
    provider: str
    model: str
    external_id: str | None
    matched: bool
    created_at: int
    last_activity: int
    expires_at: int
    request_count: int


class ConversationView(View):
    """A conversation as its agent sees it."""

    conversation_id: str
    provider: str
    model: str
    external_id: str | None
    created_at: int
    last_activity: int
    expires_at: int
    request_count: int
    rebind_count: int


class OwnersConversation(ConversationView):
    """A conversation as the owner sees it; `sessionId` is the session that bound it, for as long as that is kept."""

    agent_id: str
    session_id: str | None


class TouchedView(View):
    """When the conversation expires now; null: there is none."""

    expires_at: int | None


class Rebind(View):
    """A conversation went on with another provider or model."""

    seq: int
    timestamp: int
    agent_id: str
    session_id: str
    conversation_id: str
    from_binding: Binding = msgspec.field(name="from")
    to_binding: Binding = msgspec.field(name="to")
    reason: str


class ConversationsOverview(View):
    """Conversations, how many there are by provider and model, and the newest rebinds with their reasons."""

    conversations: list[OwnersConversation]
    counts: list[ProviderCount]
    rebinds: list[Rebind]


class _Details(msgspec.Struct, rename="camel"):
    conversation_id: str
    from_binding: Binding = msgspec.field(name="from")
    to_binding: Binding = msgspec.field(name="to")
    reason: str


_details = msgspec.json.Decoder(_Details)


def bound(answer: Bound, provider: str, model: str) -> BoundConversation:
    """Return what a bind is answered.

    Args:
        answer: the conversation as stored.
        provider, model: what was asked for.
    """
    row = answer.conversation
    return BoundConversation(
        conversation_id=row.conversation_id,
        provider=row.provider,
        model=row.model,
        external_id=row.external_id,
        matched=row.provider == provider and row.model == model,
        created_at=row.created_at,
        last_activity=row.last_activity,
        expires_at=row.expires_at,
        request_count=row.request_count,
    )


def view(row: Conversation) -> ConversationView:
    """Return a conversation as its agent sees it."""
    return msgspec.convert(row, ConversationView, from_attributes=True)


def for_owner(row: Conversation) -> OwnersConversation:
    """Return a conversation as the owner sees it."""
    return msgspec.convert(row, OwnersConversation, from_attributes=True)


def rebind(event: Event) -> Rebind:
    """Return what a CONVERSATION_REBOUND event says."""
    details = _details.decode(event.details)
    return Rebind(
        seq=event.seq,
        timestamp=event.timestamp,
        agent_id=event.agent_id or "",
        session_id=event.session_id or "",
        conversation_id=details.conversation_id,
        from_binding=details.from_binding,
        to_binding=details.to_binding,
        reason=details.reason,
    )
