"""Conversations: bound to the provider and model that they began with, for as long as they are used."""

import msgspec

from daemon.domain.changes import Outcome, Rows
from daemon.domain.errors import CONVERSATION_CONFLICT, CONVERSATION_NOT_FOUND, DaemonError, invalid
from daemon.domain.facts.conversations import Binding, ConversationBound, ConversationDeleted, ConversationRebound
from daemon.domain.rows import Conversation
from daemon.domain.sessions import require_usable

MAX_ID = 256
"""Code points of a conversation's id."""
_LINE_SEPARATORS = frozenset("\u2028\u2029")


class Bound(msgspec.Struct, frozen=True):
    """What `bind` answers: the conversation as stored, and whether it began now."""

    conversation: Conversation
    created: bool


class Rebinding(msgspec.Struct, frozen=True):
    """A change of what a conversation is bound to; it happens only where `expected` is what is stored."""

    expected: Binding
    wanted: Binding
    reason: str


def check_id(text: str) -> str:
    """Return a conversation's id as it is.

    Raises:
        DaemonError: VALIDATION_ERROR naming `conversationId`.
    """
    if not 1 <= len(text) <= MAX_ID:
        raise invalid(("conversationId", f"must have 1 to {MAX_ID} characters"))
    if not text.isprintable() and any(map(_is_forbidden, text)):
        raise invalid(("conversationId", "must not contain control characters or line separators"))
    return text


def _is_forbidden(character: str) -> bool:
    code = ord(character)
    return code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000 or character in _LINE_SEPARATORS


def is_live(conversation: Conversation | None, now: int) -> bool:
    """Return whether there is a conversation that has not expired."""
    return conversation is not None and now < conversation.expires_at


def _require_live(rows: Rows, now: int) -> Conversation:
    if rows.conversation is None or now >= rows.conversation.expires_at:
        raise DaemonError(CONVERSATION_NOT_FOUND)
    return rows.conversation


def begin(wanted: Conversation, now: int, ttl: int) -> Conversation:
    """Return a conversation that begins now (Unix seconds) and is over after `ttl` seconds without use."""
    return msgspec.structs.replace(
        wanted, created_at=now, last_activity=now, expires_at=now + ttl, request_count=1, rebind_count=0
    )


def bound_fact(begun: Conversation) -> ConversationBound:
    """Return the fact that a conversation began."""
    return ConversationBound(
        agent_id=begun.agent_id,
        session_id=begun.session_id,
        conversation_id=begun.conversation_id,
        provider=begun.provider,
        model=begun.model,
        external_id=begun.external_id,
    )


def bind(rows: Rows, now: int, *, wanted: Conversation, ttl: int) -> Outcome[Bound]:
    """Return the conversation, and begin it where there is none or only an expired one; what is stored wins.

    Args:
        rows: the session that asks, and the conversation.
        now: Unix seconds.
        wanted: what it shall begin with; its times and counters are set here.
        ttl: seconds without use after which it is over.

    Raises:
        DaemonError: as the session check does.
    """
    require_usable(rows, now)
    known = rows.conversation
    if known is not None and now < known.expires_at:
        used = msgspec.structs.replace(
            known, last_activity=now, expires_at=now + ttl, request_count=known.request_count + 1
        )
        return Outcome(answer=Bound(used, created=False), conversation=used)
    begun = begin(wanted, now, ttl)
    return Outcome(answer=Bound(begun, created=True), conversation=begun, facts=(bound_fact(begun),))


def rebind(rows: Rows, now: int, *, change: Rebinding) -> Outcome[Conversation]:
    """Bind a conversation to another provider or model: compare-and-swap, so that of two workers one wins.

    Args:
        rows: the session that asks, and the conversation.
        now: Unix seconds.
        change: from what, to what, and why.

    Raises:
        DaemonError: CONVERSATION_NOT_FOUND, CONVERSATION_CONFLICT with what is stored, and as the session check does.
    """
    session = require_usable(rows, now)
    known = _require_live(rows, now)
    if Binding(known.provider, known.model) != change.expected:
        stored = {"provider": known.provider, "model": known.model, "rebindCount": known.rebind_count}
        raise DaemonError(CONVERSATION_CONFLICT, details=stored)
    rebound = msgspec.structs.replace(
        known, provider=change.wanted.provider, model=change.wanted.model, rebind_count=known.rebind_count + 1
    )
    fact = ConversationRebound(
        agent_id=known.agent_id,
        session_id=session.id,
        conversation_id=known.conversation_id,
        from_binding=change.expected,
        to_binding=change.wanted,
        reason=change.reason,
    )
    return Outcome(answer=rebound, conversation=rebound, facts=(fact,))


def delete(rows: Rows, now: int) -> Outcome[None]:
    """Delete a conversation.

    Args:
        rows: the session that asks, and the conversation.
        now: Unix seconds.

    Raises:
        DaemonError: CONVERSATION_NOT_FOUND, and as the session check does.
    """
    session = require_usable(rows, now)
    known = _require_live(rows, now)
    fact = ConversationDeleted(agent_id=known.agent_id, session_id=session.id, conversation_id=known.conversation_id)
    return Outcome(answer=None, gone_conversation=known.key, facts=(fact,))
