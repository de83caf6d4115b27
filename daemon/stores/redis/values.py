"""What a conversation is in Redis: one JSON object."""

import msgspec

from daemon.domain.rows import Conversation, ConversationKey


class Value(msgspec.Struct):
    """The value of a key; times are Unix seconds of the domain clock.

    Args:
        id: the conversation's, without the agent's.
        session_id: the session that bound it.
    """

    id: str
    provider: str
    model: str
    external_id: str | None
    created_at: int
    session_id: str | None
    last_activity: int
    expires_at: int
    request_count: int
    rebind_count: int


_decode = msgspec.json.Decoder(Value).decode
_encode = msgspec.json.Encoder().encode


def encode(conversation: Conversation) -> bytes:
    """Return a conversation as it stands in Redis."""
    fields = {name: getattr(conversation, name) for name in Value.__struct_fields__ if name != "id"}
    return _encode(Value(id=conversation.conversation_id, **fields))


def decode(raw: bytes, key: ConversationKey) -> Conversation:
    """Return the conversation that a value is.

    Raises:
        msgspec.DecodeError: it is none.
    """
    value = _decode(raw)
    return Conversation(
        *key,
        value.provider,
        value.model,
        value.external_id,
        value.session_id,
        value.created_at,
        value.last_activity,
        value.expires_at,
        value.request_count,
        value.rebind_count,
    )
