"""Sessions: status, the session check, and every change but renewal (`renewal.py`)."""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UnsetType

from daemon.domain import lifecycle, pool, processes, turns
from daemon.domain.body import json_text
from daemon.domain.changes import Outcome, Rows
from daemon.domain.constraints import json_problems, limits, narrowed
from daemon.domain.errors import (
    AGENT_NOT_ACTIVE,
    INVALID_STATE_TRANSITION,
    INVALID_TOKEN,
    SESSION_ABSOLUTE_LIFETIME_EXCEEDED,
    SESSION_NOT_FOUND,
    DaemonError,
    invalid,
)
from daemon.domain.facts.agents import PUBLISHED
from daemon.domain.facts.sessions import SessionExtended, SessionKilled, SessionRotated, SessionUpdated
from daemon.domain.lifecycle import check_lineage, end, transition
from daemon.domain.process_views import SentMessage
from daemon.domain.reconfiguration import Reconfigure
from daemon.domain.requests import PatchSession, PublishEvent
from daemon.domain.rows import Session
from daemon.domain.states import State, advance
from daemon.domain.status import lasts_until, status
from daemon.domain.views import (
    ExtendedSession,
    PublishedEvent,
    RevokedSession,
    RotatedSession,
)

Mint = Callable[[Session], tuple[str, str]]
"""Makes the token of a session's current generation, and its hash: pure, its random part is made before."""


def require(session: Session | None) -> Session:
    """Return the session if there is one.

    Raises:
        DaemonError: SESSION_NOT_FOUND.
    """
    if session is None:
        raise DaemonError(SESSION_NOT_FOUND)
    return session


def require_usable(rows: Rows, now: int) -> Session:
    """Return the session that an agent asks with, as stored, if it may still be used: the session check once more.

    Raises:
        DaemonError: as the session check does.
    """
    session, agent = rows.session, rows.agent
    if session is None or agent is None:
        raise DaemonError(INVALID_TOKEN)
    check_lineage(rows, session, agent, now)
    return session


def constraints_below(parent: Session, asked: dict[str, Any]) -> str | None:
    """Return constraints as a child is to have them: what its parent's leave of those that were asked for.

    Raises:
        DaemonError: VALIDATION_ERROR: with what is handed down they are too large.
    """
    left = narrowed(asked, parent.constraints)
    if "maxRenewals" in left:  # the parent's limit need not stand in its constraints
        left["maxRenewals"] = min(left["maxRenewals"], parent.max_renewals)
    if problems := json_problems(left, "constraints"):
        raise invalid(*problems)
    return json_text(left) if left else None


def _require_active(rows: Rows, now: int, to: State | None) -> Session:
    session = require(rows.session)
    current = status(session, now)
    if current != "ACTIVE":
        raise DaemonError(
            INVALID_STATE_TRANSITION,
            f"The session's status is {current}.",
            details={"from": session.state, "to": to, "allowed": [], "status": current},
        )
    return session


def patch(rows: Rows, now: int, *, body: PatchSession, reconfigure: Reconfigure | None) -> Outcome[Session]:
    """Change the attributes that the body names; `constraints.maxRenewals` rewrites the limit of renewals.

    Args:
        rows: the session, its process and its turns.
        now: Unix seconds.
        body: what to change.
        reconfigure: the new configuration of its process.

    Raises:
        DaemonError: SESSION_NOT_FOUND, INVALID_STATE_TRANSITION, SESSION_BUSY.
    """
    session = _require_active(rows, now, None)
    changed = _patched(session, body, rows.parent)
    reconfigured = reconfigure(rows, now) if reconfigure is not None else None
    if reconfigured is not None:
        session = reconfigured.session or session
    if not changed and reconfigured is None:
        return Outcome(answer=session)
    updated = msgspec.structs.replace(session, **changed)
    names = (set(changed) - {"idle_timeout"}) | ({"process"} if reconfigured else set())
    fact = SessionUpdated(agent_id=session.agent_id, session_id=session.id, fields=tuple(sorted(names)))
    if reconfigured is None:
        return Outcome(answer=updated, session=updated, facts=(fact,))
    return msgspec.structs.replace(reconfigured, answer=updated, session=updated, facts=(fact, *reconfigured.facts))


def _patched(session: Session, body: PatchSession, parent: Session | None) -> dict[str, Any]:
    """Return the columns that the body changes; a child's constraints are cut to its parent's, as at its creation."""
    changes = body.changes()
    if "constraints" in changes:
        if parent is not None:
            asked = {} if isinstance(body.constraints, UnsetType) else body.constraints or {}
            changes["constraints"] = constraints_below(parent, asked)
        known = limits(changes["constraints"])
        changes["idle_timeout"] = known.idle_timeout
        if known.max_renewals is not None:
            changes["max_renewals"] = known.max_renewals
    return {name: value for name, value in changes.items() if getattr(session, name) != value}


def revoke(rows: Rows, now: int, *, reason: str, reject_window: int | None = None) -> Outcome[RevokedSession]:
    """End a session; repeated, nothing changes.

    Args:
        rows: the session.
        now: Unix seconds.
        reason: recorded as `revoked_reason`.
        reject_window: seconds after a renewal within which this counts as rejecting it; None: it never does.

    Raises:
        DaemonError: SESSION_NOT_FOUND.
    """
    session = require(rows.session)
    if session.revoked_at is not None:
        again = RevokedSession(
            id=session.id, status="REVOKED", revoked_at=session.revoked_at, message="Session already revoked"
        )
        return Outcome(answer=again)
    ended, facts = end(session, now, reason=reason, reject_window=reject_window)
    answer = RevokedSession(id=session.id, status="REVOKED", revoked_at=now)
    return Outcome(answer=answer, session=ended, facts=facts)


def end_own(rows: Rows, now: int) -> Outcome[RevokedSession]:
    """End the session on its agent's wish; everything is checked again on the stored row.

    Raises:
        DaemonError: as the session check does.
    """
    require_usable(rows, now)
    return revoke(rows, now, reason="ended_by_agent")


def publish(rows: Rows, now: int, *, body: PublishEvent) -> Outcome[PublishedEvent]:
    """Record what an agent tells of its own work; everything is checked again on the stored row.

    Raises:
        DaemonError: as the session check does.
    """
    session = require_usable(rows, now)
    fact = PUBLISHED[body.type](
        agent_id=session.agent_id,
        session_id=session.id,
        reference_id=body.reference_id,
        title=body.title,
        details=body.details or {},
    )
    return Outcome(answer_at=lambda seq: PublishedEvent(seq=seq), facts=(fact,))


def rotate(rows: Rows, now: int, *, mint: Mint) -> Outcome[RotatedSession]:
    """Replace the session's token on the owner's wish; the old one is refused, its holder not punished.

    Raises:
        DaemonError: SESSION_NOT_FOUND, INVALID_STATE_TRANSITION.
    """
    session = _require_active(rows, now, None)
    following = rotated(session, now)
    token, digest = mint(following)
    following = msgspec.structs.replace(following, token_hash=digest)
    fact = SessionRotated(agent_id=session.agent_id, session_id=session.id, generation=following.generation)
    answer = RotatedSession(id=session.id, token=token, expires_at=session.expires_at)
    return Outcome(answer=answer, session=following, retry_answer=b"", facts=(fact,))


def rotated(session: Session, now: int) -> Session:
    """Return the session after its owner replaced its token at this moment, but for that token."""
    return msgspec.structs.replace(
        session,
        generation=session.generation + 1,
        owner_rotated_generation=session.generation,
        previous_token_hash=None,
        rotated_at=now,
    )


def extend(rows: Rows, now: int, *, seconds: int) -> Outcome[ExtendedSession]:
    """Give the session more time, never past its absolute end or its parent's, and never less than it has.

    Raises:
        DaemonError: SESSION_NOT_FOUND, INVALID_STATE_TRANSITION, SESSION_ABSOLUTE_LIFETIME_EXCEEDED.
    """
    session = _require_active(rows, now, None)
    last = lasts_until(session, rows.parent)
    if session.expires_at >= last:
        raise DaemonError(
            SESSION_ABSOLUTE_LIFETIME_EXCEEDED,
            None if last == session.absolute_expires_at else "The session lasts as long as its parent.",
            details={"absoluteExpiresAt": session.absolute_expires_at},
            hint=None if last == session.absolute_expires_at else "Extend its parent first.",
        )
    expires = max(session.expires_at, min(now + seconds, last))
    answer = ExtendedSession(id=session.id, expires_at=expires)
    if expires == session.expires_at:
        return Outcome(answer=answer)
    fact = SessionExtended(agent_id=session.agent_id, session_id=session.id, expires_at=expires)
    return Outcome(answer=answer, session=msgspec.structs.replace(session, expires_at=expires), facts=(fact,))


def suspend(rows: Rows, now: int, *, reason: str | None) -> Outcome[Session]:
    """Refuse the session's token, and stop its process, until the session is resumed.

    Raises:
        DaemonError: SESSION_NOT_FOUND, INVALID_STATE_TRANSITION.
    """
    session, facts = transition(_require_active(rows, now, "SUSPENDED"), "SUSPENDED", now, reason=reason)
    process = rows.process and msgspec.structs.replace(rows.process, suspended_by="owner")
    return Outcome(answer=session, session=session, process=process, facts=facts)


def resume(rows: Rows, now: int, *, reason: str | None, places: pool.Limits) -> Outcome[Session]:
    """Accept a suspended session's token again and let its process go on; one that failed begins again.

    Args:
        rows: the session, its process and its turns, and the pool.
        now: Unix seconds.
        reason: the owner's words.
        places: of the pool of processes.

    Raises:
        DaemonError: SESSION_NOT_FOUND, INVALID_STATE_TRANSITION, PROCESS_LIMIT_EXCEEDED.
    """
    session = _require_active(rows, now, "READY")
    process = rows.process
    if process is not None:
        return processes.resumed_by_owner(rows, session, process, now, reason=reason, places=places)
    processes.require_suspended(session)
    resumed, facts = transition(session, "READY", now, reason=reason)
    return Outcome(answer=resumed, session=resumed, facts=facts)


def kill(rows: Rows, now: int, *, reason: str | None) -> Outcome[Session]:
    """End a supervised session without grace; one whose end was begun is ended now.

    Raises:
        DaemonError: SESSION_NOT_FOUND; INVALID_STATE_TRANSITION where it has no process, or is CLOSED.
    """
    session, _ = processes.require(rows)
    if session.state == "CLOSED":
        advance(session.state, "CLOSING")
    if session.revoked_at is None:
        session, facts = lifecycle.kill(session, now, reason=reason)
        return Outcome(answer=session, session=session, facts=facts)
    killed = msgspec.structs.replace(session, revoked_reason="killed")
    fact = SessionKilled(agent_id=session.agent_id, session_id=session.id, reason=reason)
    return Outcome(answer=killed, session=killed, facts=(fact,))


def message(
    rows: Rows, now: int, *, content: str, queue: bool, places: pool.Limits, by_agent: bool
) -> Outcome[SentMessage]:
    """Begin a turn of a supervised session with a message, or queue it.

    Args:
        rows: the session, its agent, its process and its turns, and the pool.
        now: Unix seconds.
        content: the message.
        queue: whether it may wait for its turn.
        places: of the pool of processes.
        by_agent: whether the session's own token asks, which must be usable.

    Raises:
        DaemonError: SESSION_NOT_FOUND, SESSION_BUSY, INVALID_STATE_TRANSITION, AGENT_SUSPENDED,
            PROCESS_LIMIT_EXCEEDED, and what the session check raises.
    """
    if by_agent:
        require_usable(rows, now)
    session, process = processes.require(rows)
    _require_active(rows, now, "ACTIVE")
    if rows.agent is not None and rows.agent.status != "ACTIVE":
        raise DaemonError(AGENT_NOT_ACTIVE)
    return turns.send(rows, session, process, now, content=content, queue=queue, limits=places)
