"""Conversations that are held outside of the engine, and how the engine's rows follow them.

Every law here may be run again on what it has written: it writes no second row and no second event.
"""

import msgspec

from daemon.domain.changes import Outcome, Rows
from daemon.domain.conversations import Rebinding, bound_fact, is_live
from daemon.domain.errors import CONVERSATION_CONFLICT, DaemonError
from daemon.domain.events import Fact
from daemon.domain.facts.conversations import Binding, ConversationDeleted, ConversationRebound
from daemon.domain.rows import Conversation
from daemon.domain.sessions import require_usable

UNTOLD = "found in Redis"
"""Reason of a rebind whose maker was killed before it could tell the engine."""


def began(rows: Rows, now: int, *, begun: Conversation) -> Outcome[None]:
    """Store a conversation that has begun elsewhere.

    Args:
        rows: the session that asked, and the conversation.
        now: Unix seconds.
        begun: as it began.

    Raises:
        DaemonError: as the session check does; CONVERSATION_CONFLICT: another one has begun here meanwhile.
    """
    require_usable(rows, now)
    known = rows.conversation
    if known is not None and is_live(known, now) and (known.created_at != begun.created_at or _differs(known, begun)):
        raise DaemonError(CONVERSATION_CONFLICT)
    return _follow(rows, now, begun, UNTOLD)


def rebound(rows: Rows, now: int, *, held: Conversation, change: Rebinding) -> Outcome[None]:
    """Store that a conversation was bound to something else elsewhere.

    Args:
        rows: the session that asked, and the conversation.
        now: Unix seconds.
        held: as it is bound now.
        change: from what, to what, and why.

    Raises:
        DaemonError: as the session check does; CONVERSATION_CONFLICT: it was bound to something else here meanwhile.
    """
    session = require_usable(rows, now)
    known = rows.conversation
    if known is not None and is_live(known, now) and known.created_at == held.created_at and _differs(known, held):
        stored = {"provider": known.provider, "model": known.model, "rebindCount": known.rebind_count}
        raise DaemonError(CONVERSATION_CONFLICT, details=stored)
    if known is None or known.created_at != held.created_at or known.rebind_count < held.rebind_count - 1:
        return _follow(rows, now, msgspec.structs.replace(held, session_id=session.id), change.reason)
    fact = ConversationRebound(
        agent_id=held.agent_id,
        session_id=session.id,
        conversation_id=held.conversation_id,
        from_binding=change.expected,
        to_binding=change.wanted,
        reason=change.reason,
    )
    if known.rebind_count >= held.rebind_count:
        # Somebody's later rebind was stored first: this one happened too, and is only told.
        return Outcome(answer=None, facts=(fact,))
    # Its uses are on their way to the row on their own.
    row = msgspec.structs.replace(known, provider=held.provider, model=held.model, rebind_count=held.rebind_count)
    return Outcome(answer=None, conversation=row, facts=(fact,))


def removed(rows: Rows, now: int, *, held: Conversation) -> Outcome[None]:
    """Record that a conversation was deleted of which the engine knew nothing, or that it took for expired.

    Args:
        rows: the session that asked, and the conversation.
        now: Unix seconds.
        held: as it was.

    Raises:
        DaemonError: as the session check does.
    """
    session = require_usable(rows, now)
    fact = ConversationDeleted(agent_id=held.agent_id, session_id=session.id, conversation_id=held.conversation_id)
    return Outcome(answer=None, gone_conversation=held.key if rows.conversation else None, facts=(fact,))


def follow(rows: Rows, now: int, *, held: Conversation) -> Outcome[None]:
    """Make the row what is held elsewhere, unless the row is newer.

    Args:
        rows: the agent, the session that bound the conversation, and the conversation.
        now: Unix seconds.
        held: as it is held.
    """
    return _follow(rows, now, held, UNTOLD) if rows.agent is not None else Outcome(answer=None)


def _follow(rows: Rows, now: int, held: Conversation, reason: str) -> Outcome[None]:
    known = rows.conversation
    if rows.session is None:
        held = msgspec.structs.replace(held, session_id=None)
    if known is None or not is_live(known, now) or known.created_at < held.created_at:
        facts: tuple[Fact, ...] = () if known and known.created_at == held.created_at else (bound_fact(held),)
        return Outcome(answer=None, conversation=held, facts=facts)
    if known.created_at > held.created_at:
        return Outcome(answer=None)
    joined = _joined(known, held)
    if joined.rebind_count == known.rebind_count:
        return Outcome(answer=None, conversation=joined if joined != known else None)
    fact = ConversationRebound(
        agent_id=held.agent_id,
        session_id=held.session_id,
        conversation_id=held.conversation_id,
        from_binding=Binding(known.provider, known.model),
        to_binding=Binding(held.provider, held.model),
        reason=reason,
    )
    return Outcome(answer=None, conversation=joined, facts=(fact,))


def _differs(known: Conversation, held: Conversation) -> bool:
    """Return whether two bindings follow from the same one, so that one of them has come too late."""
    bound = (known.provider, known.model) == (held.provider, held.model)
    return known.rebind_count == held.rebind_count and not bound


def _joined(known: Conversation, held: Conversation) -> Conversation:
    """Return one conversation of the row and what is held: the binding that was changed more often, the latest use."""
    bound = held if held.rebind_count > known.rebind_count else known
    return msgspec.structs.replace(
        bound,
        session_id=known.session_id,
        last_activity=max(known.last_activity, held.last_activity),
        expires_at=max(known.expires_at, held.expires_at),
        request_count=max(known.request_count, held.request_count),
    )
