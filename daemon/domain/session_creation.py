"""Making a session: its limits are counted on the very rows of the transaction that makes it."""

from typing import Any

import msgspec

from daemon.domain import pool
from daemon.domain.changes import Outcome, Rows
from daemon.domain.errors import (
    AGENT_NOT_ACTIVE,
    AGENT_NOT_FOUND,
    AGENT_TERMINATED,
    IDEMPOTENCY_CONFLICT,
    SESSION_LIMIT_EXCEEDED,
    DaemonError,
)
from daemon.domain.facts.sessions import SessionCreated
from daemon.domain.process_rows import Process
from daemon.domain.rows import Agent, Session
from daemon.domain.sessions import Mint
from daemon.domain.states import State, advance
from daemon.domain.views import CreatedSession

_ZERO = (
    "expires_at",
    "created_at",
    "renewal_count",
    "absolute_expires_at",
    "ttl_seconds",
    "owner_rotated_generation",
    "used_generation",
    "request_count",
    "depth",
)
"""Columns that begin at nought; what is named nowhere is NULL."""


class Asked(msgspec.Struct, frozen=True):
    """A session that is asked for, and the limits that it must keep.

    Args:
        session: the new row without its times and its token.
        process: what the daemon shall run for it.
        ttl: seconds; the fixed unit of renewal.
        absolute_lifetime: seconds until no renewal helps any more.
        limit: sessions of status ACTIVE that an agent may have.
        places: of the pool of processes.
        key: hash of the Idempotency-Key.
        mint: makes the token.
    """

    session: Session
    process: Process | None
    ttl: int
    absolute_lifetime: int
    limit: int
    places: pool.Limits
    key: str | None
    mint: Mint


def blank(session_id: str, agent_id: str, **more: Any) -> Session:
    """Return a new row without what the transaction decides: its times and its token.

    Args:
        session_id: its id.
        agent_id: whose session it is.
        more: columns that are not empty.
    """
    columns: dict[str, Any] = dict.fromkeys(Session.__struct_fields__) | dict.fromkeys(_ZERO, 0)
    columns |= {"token_hash": "", "generation": 1, "state": "CREATED", "created_by": "api", "metadata": "{}"}
    return Session(**(columns | more | {"id": session_id, "agent_id": agent_id}))


def create(rows: Rows, now: int, *, asked: Asked) -> Outcome[CreatedSession]:
    """Make a session; the limits are counted on the very rows of this transaction.

    Args:
        rows: the agent, its number of sessions of status ACTIVE, what the idempotency key created before, the pool.
        now: Unix seconds.
        asked: what is asked for.

    Raises:
        DaemonError: AGENT_NOT_FOUND, AGENT_SUSPENDED, AGENT_TERMINATED, IDEMPOTENCY_CONFLICT, SESSION_LIMIT_EXCEEDED,
            PROCESS_LIMIT_EXCEEDED.
    """
    _require_agent_for_session(rows.agent)
    if rows.idempotent_session is not None:
        raise DaemonError(IDEMPOTENCY_CONFLICT, details={"sessionId": rows.idempotent_session})
    if rows.active_sessions >= asked.limit:
        raise DaemonError(SESSION_LIMIT_EXCEEDED, details={"limit": asked.limit, "active": rows.active_sessions})
    room = None
    if asked.process is not None:
        room = pool.make_room(rows.pool, asked.session.id, asked.session.agent_id, asked.places)
    made, answer, fact = minted(foreseen(asked, now), asked.mint)
    return Outcome(
        answer=answer,
        new_session=made,
        new_process=asked.process,
        room=room,
        idempotency_key=asked.key,
        facts=(fact, *pool.given_up(room)),
    )


def minted(session: Session, mint: Mint) -> tuple[Session, CreatedSession, SessionCreated]:
    """Return a new session with its token, what its owner is answered, and the fact that it was made."""
    token, digest = mint(session)
    answer = CreatedSession(
        id=session.id,
        token=token,
        expires_at=session.expires_at,
        agent_id=session.agent_id,
        absolute_expires_at=session.absolute_expires_at,
        max_renewals=session.max_renewals,
        state=session.state,
    )
    fact = SessionCreated(
        agent_id=session.agent_id,
        session_id=session.id,
        expires_at=session.expires_at,
        absolute_expires_at=session.absolute_expires_at,
        max_renewals=session.max_renewals,
        created_by=session.created_by,
        parent_id=session.parent_id,
    )
    return msgspec.structs.replace(session, token_hash=digest), answer, fact


def foreseen(asked: Asked, now: int) -> Session:
    """Return the new row if it is made at this moment, but for its token: READY, unless it waits for its process."""
    absolute = now + asked.absolute_lifetime
    made = msgspec.structs.replace(
        asked.session,
        ttl_seconds=asked.ttl,
        absolute_expires_at=absolute,
        expires_at=min(now + asked.ttl, absolute),
    )
    if asked.process is None:
        return at_once(made, now)
    return msgspec.structs.replace(made, state="CREATED", state_changed_at=now, created_at=now)


def at_once(session: Session, now: int) -> Session:
    """Return a new row that waits for nothing: it passed CREATED and INITIALIZING and is READY."""
    state: State = advance(advance("CREATED", "INITIALIZING"), "READY")
    return msgspec.structs.replace(session, state=state, state_changed_at=now, created_at=now)


def _require_agent_for_session(agent: Agent | None) -> None:
    if agent is None:
        raise DaemonError(AGENT_NOT_FOUND)
    if agent.status in {"TERMINATING", "TERMINATED"}:
        raise DaemonError(AGENT_TERMINATED)
    if agent.status != "ACTIVE":
        raise DaemonError(AGENT_NOT_ACTIVE)
