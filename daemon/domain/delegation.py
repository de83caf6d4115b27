"""Delegation: an agent makes sessions from its own, which last no longer and may do no more than that.

A child is attenuated as RFC 8693 and macaroons would have it: it can be narrower than its parent, never wider. What it
asks for beyond that is cut to what its parent has, as a term is cut at the absolute end.
"""

from typing import Any

import msgspec

from daemon.domain import session_creation, sessions
from daemon.domain.changes import Outcome, Rows
from daemon.domain.constraints import limits
from daemon.domain.errors import IDEMPOTENCY_CONFLICT, SESSION_LIMIT_EXCEEDED, SESSION_NOT_FOUND, DaemonError
from daemon.domain.rows import Session
from daemon.domain.sessions import Mint, constraints_below, require_usable
from daemon.domain.views import CreatedChild, RevokedSession

MAX_DEPTH = 3
"""Steps from the session that the owner made to the last that can descend from it."""
MAX_CHILDREN = 200
"""Living children of one session."""
MAX_TREE = 1_000
"""Living descendants of a session that the owner made: one transaction must be able to end them all."""


class AskedChild(msgspec.Struct, frozen=True):
    """A child that is asked for.

    Args:
        session: the new row, but for what its parent, the moment and its token make of it.
        constraints: as they were sent.
        ttl: seconds; the fixed unit of renewal.
        absolute_lifetime: seconds until no renewal helps any more, if its parent lasts as long.
        key: hash of the Idempotency-Key.
        mint: makes the token.
    """

    session: Session
    constraints: dict[str, Any]
    ttl: int
    absolute_lifetime: int
    key: str | None
    mint: Mint


def create(rows: Rows, now: int, *, asked: AskedChild) -> Outcome[CreatedChild]:
    """Make a child of the session that asks; everything is checked again on the stored rows.

    Args:
        rows: the session, its agent and its ancestors, what lives below it, what the idempotency key created before.
        now: Unix seconds.
        asked: what is asked for.

    Raises:
        DaemonError: SESSION_LIMIT_EXCEEDED, IDEMPOTENCY_CONFLICT, VALIDATION_ERROR, and as the session check does.
    """
    parent = require_usable(rows, now)
    if rows.idempotent_session is not None:
        raise DaemonError(IDEMPOTENCY_CONFLICT, details={"sessionId": rows.idempotent_session})
    _check_room(rows, parent)
    made = session_creation.at_once(_below(parent, asked, now), now)
    made, created, fact = session_creation.minted(made, asked.mint)
    constraints = msgspec.Raw((made.constraints or "null").encode())
    answer = CreatedChild(
        *(*msgspec.structs.astuple(created), parent.id, made.depth, made.ttl_seconds, constraints),
    )
    return Outcome(answer=answer, new_session=made, idempotency_key=asked.key, facts=(fact,))


def _check_room(rows: Rows, parent: Session) -> None:
    for of, limit, there, detail in (
        ("depth", MAX_DEPTH, parent.depth, "A session this far below the one that the owner made has no children."),
        ("children", MAX_CHILDREN, rows.children, "The session has as many children as it may have."),
        ("descendants", MAX_TREE, rows.relatives, "As many sessions as may descend from the same one already do."),
    ):
        if there >= limit:
            raise DaemonError(
                SESSION_LIMIT_EXCEEDED,
                detail,
                details={"of": of, "limit": limit, "active": there},
                hint="End children that are no longer needed, or let a session nearer to the top delegate.",
            )


def _below(parent: Session, asked: AskedChild, now: int) -> Session:
    """Return the new row with what its parent leaves it."""
    text = constraints_below(parent, asked.constraints)
    known = limits(text)
    most = asked.session.max_renewals if known.max_renewals is None else known.max_renewals
    absolute = min(now + asked.absolute_lifetime, parent.absolute_expires_at)
    ttl = min(asked.ttl, parent.ttl_seconds)
    return msgspec.structs.replace(
        asked.session,
        agent_id=parent.agent_id,
        parent_id=parent.id,
        root_id=parent.tree_id,
        depth=parent.depth + 1,
        user_id=parent.user_id,
        workspace_id=parent.workspace_id,
        constraints=text,
        idle_timeout=known.idle_timeout,
        max_renewals=min(most, parent.max_renewals),
        ttl_seconds=ttl,
        absolute_expires_at=absolute,
        expires_at=min(now + ttl, absolute, parent.expires_at),
    )


def end_child(rows: Rows, now: int, *, caller_id: str) -> Outcome[RevokedSession]:
    """End a session below the one that asks; everything is checked again on the stored rows.

    Args:
        rows: the child, its agent and its ancestors.
        now: Unix seconds.
        caller_id: id of the session that asks.

    Raises:
        DaemonError: SESSION_NOT_FOUND where it is none of its own, and as the session check does for the caller.
    """
    caller = next((one for one in rows.ancestors if one.id == caller_id), None)
    if caller is None:
        raise DaemonError(SESSION_NOT_FOUND)
    above = rows.ancestors[rows.ancestors.index(caller) + 1 :]
    require_usable(Rows(session=caller, agent=rows.agent, ancestors=above), now)
    return sessions.revoke(rows, now, reason="ended_by_parent")
