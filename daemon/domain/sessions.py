"""Sessions: status, the session check, and every change but renewal (`renewal.py`)."""

from collections.abc import Callable

import msgspec

from daemon.domain.changes import Outcome, Rows
from daemon.domain.constraints import limits
from daemon.domain.errors import (
    AGENT_NOT_ACTIVE,
    AGENT_NOT_FOUND,
    AGENT_TERMINATED,
    IDEMPOTENCY_CONFLICT,
    INVALID_STATE_TRANSITION,
    INVALID_TOKEN,
    SESSION_ABSOLUTE_LIFETIME_EXCEEDED,
    SESSION_LIMIT_EXCEEDED,
    SESSION_NOT_FOUND,
    DaemonError,
)
from daemon.domain.facts.agents import PUBLISHED
from daemon.domain.facts.sessions import SessionCreated, SessionExtended, SessionRotated, SessionUpdated
from daemon.domain.lifecycle import end, transition
from daemon.domain.requests import PatchSession, PublishEvent
from daemon.domain.rows import Agent, Session
from daemon.domain.states import TRANSITIONS, State, advance
from daemon.domain.status import check_alive, check_usable, status
from daemon.domain.views import CreatedSession, ExtendedSession, PublishedEvent, RevokedSession, RotatedSession

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
    check_alive(session, now)
    check_usable(session, agent, now)
    return session


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


def create(
    rows: Rows, now: int, *, session: Session, ttl: int, absolute_lifetime: int, limit: int, key: str | None, mint: Mint
) -> Outcome[CreatedSession]:
    """Make a session; the limit is counted on the very rows of this transaction.

    Args:
        rows: the agent, its number of sessions of status ACTIVE, and what the idempotency key created before.
        now: Unix seconds.
        session: the new row without its times and its token.
        ttl: seconds; the fixed unit of renewal.
        absolute_lifetime: seconds until no renewal helps any more.
        limit: sessions of status ACTIVE that an agent may have.
        key: hash of the Idempotency-Key.
        mint: makes the token.

    Raises:
        DaemonError: AGENT_NOT_FOUND, AGENT_SUSPENDED, AGENT_TERMINATED, IDEMPOTENCY_CONFLICT, SESSION_LIMIT_EXCEEDED.
    """
    _require_agent_for_session(rows.agent)
    if rows.idempotent_session is not None:
        raise DaemonError(IDEMPOTENCY_CONFLICT, details={"sessionId": rows.idempotent_session})
    if rows.active_sessions >= limit:
        raise DaemonError(SESSION_LIMIT_EXCEEDED, details={"limit": limit, "active": rows.active_sessions})
    absolute = now + absolute_lifetime
    advance(advance("CREATED", "INITIALIZING"), "READY")
    made = msgspec.structs.replace(
        session,
        state="READY",
        state_changed_at=now,
        created_at=now,
        ttl_seconds=ttl,
        absolute_expires_at=absolute,
        expires_at=min(now + ttl, absolute),
    )
    token, digest = mint(made)
    made = msgspec.structs.replace(made, token_hash=digest)
    fact = SessionCreated(
        agent_id=made.agent_id,
        session_id=made.id,
        expires_at=made.expires_at,
        absolute_expires_at=absolute,
        max_renewals=made.max_renewals,
        created_by=made.created_by,
    )
    answer = CreatedSession(
        id=made.id,
        token=token,
        expires_at=made.expires_at,
        agent_id=made.agent_id,
        absolute_expires_at=absolute,
        max_renewals=made.max_renewals,
        state=made.state,
    )
    return Outcome(answer=answer, new_session=made, idempotency_key=key, facts=(fact,))


def _require_agent_for_session(agent: Agent | None) -> None:
    if agent is None:
        raise DaemonError(AGENT_NOT_FOUND)
    if agent.status in {"TERMINATING", "TERMINATED"}:
        raise DaemonError(AGENT_TERMINATED)
    if agent.status != "ACTIVE":
        raise DaemonError(AGENT_NOT_ACTIVE)


def patch(rows: Rows, now: int, *, body: PatchSession) -> Outcome[Session]:
    """Change the attributes that the body names; `constraints.maxRenewals` rewrites the limit of renewals.

    Raises:
        DaemonError: SESSION_NOT_FOUND, INVALID_STATE_TRANSITION.
    """
    session = _require_active(rows, now, None)
    changes = body.changes()
    if "constraints" in changes:
        known = limits(changes["constraints"])
        changes["idle_timeout"] = known.idle_timeout
        if known.max_renewals is not None:
            changes["max_renewals"] = known.max_renewals
    changed = {name: value for name, value in changes.items() if getattr(session, name) != value}
    if not changed:
        return Outcome(answer=session)
    updated = msgspec.structs.replace(session, **changed)
    fields = tuple(sorted(set(changed) - {"idle_timeout"}))
    fact = SessionUpdated(agent_id=session.agent_id, session_id=session.id, fields=fields)
    return Outcome(answer=updated, session=updated, facts=(fact,))


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
    following = msgspec.structs.replace(
        session,
        generation=session.generation + 1,
        owner_rotated_generation=session.generation,
        previous_token_hash=None,
        rotated_at=now,
    )
    token, digest = mint(following)
    following = msgspec.structs.replace(following, token_hash=digest)
    fact = SessionRotated(agent_id=session.agent_id, session_id=session.id, generation=following.generation)
    answer = RotatedSession(id=session.id, token=token, expires_at=session.expires_at)
    return Outcome(answer=answer, session=following, retry_answer=b"", facts=(fact,))


def extend(rows: Rows, now: int, *, seconds: int) -> Outcome[ExtendedSession]:
    """Give the session more time, never past its absolute end and never less than it has.

    Raises:
        DaemonError: SESSION_NOT_FOUND, INVALID_STATE_TRANSITION, SESSION_ABSOLUTE_LIFETIME_EXCEEDED.
    """
    session = _require_active(rows, now, None)
    if session.expires_at >= session.absolute_expires_at:
        raise DaemonError(
            SESSION_ABSOLUTE_LIFETIME_EXCEEDED, details={"absoluteExpiresAt": session.absolute_expires_at}
        )
    expires = max(session.expires_at, min(now + seconds, session.absolute_expires_at))
    answer = ExtendedSession(id=session.id, expires_at=expires)
    if expires == session.expires_at:
        return Outcome(answer=answer)
    fact = SessionExtended(agent_id=session.agent_id, session_id=session.id, expires_at=expires)
    return Outcome(answer=answer, session=msgspec.structs.replace(session, expires_at=expires), facts=(fact,))


def suspend(rows: Rows, now: int, *, reason: str | None) -> Outcome[Session]:
    """Refuse the session's token until the session is resumed.

    Raises:
        DaemonError: SESSION_NOT_FOUND, INVALID_STATE_TRANSITION.
    """
    session, facts = transition(_require_active(rows, now, "SUSPENDED"), "SUSPENDED", now, reason=reason)
    return Outcome(answer=session, session=session, facts=facts)


def resume(rows: Rows, now: int, *, reason: str | None) -> Outcome[Session]:
    """Accept a suspended session's token again.

    Raises:
        DaemonError: SESSION_NOT_FOUND, INVALID_STATE_TRANSITION.
    """
    session = _require_active(rows, now, "READY")
    if session.state != "SUSPENDED":
        raise DaemonError(
            INVALID_STATE_TRANSITION,
            f"A session in state {session.state} cannot be resumed.",
            details={"from": session.state, "to": "READY", "allowed": list(TRANSITIONS[session.state])},
        )
    resumed, facts = transition(session, "READY", now, reason=reason)
    return Outcome(answer=resumed, session=resumed, facts=facts)
