"""Changes of a session's life-cycle state: one door, one event a step."""

from typing import Any

import msgspec

from daemon.domain.changes import Outcome, Rows
from daemon.domain.errors import SESSION_REVOKED, DaemonError
from daemon.domain.events import Fact
from daemon.domain.facts.sessions import (
    SessionClosed,
    SessionError,
    SessionExpired,
    SessionKilled,
    SessionRenewalRejected,
    SessionResumed,
    SessionRevoked,
    SessionStarted,
    SessionStateChanged,
    SessionSuspended,
)
from daemon.domain.rows import Agent, Session
from daemon.domain.states import State, advance
from daemon.domain.status import check_standing, expiry, reject_until

PARENT_ENDED = "parent_ended"
"""Why a session ended whose ancestor did."""

Changed = tuple[Session, tuple[Fact, ...]]
"""A session after a step, with the facts of that step."""


def transition(session: Session, to: State, now: int, cause: Fact | None = None, **told: Any) -> Changed:
    """Change the session's state by the one table, with the one event of that step.

    Args:
        session: before the step.
        to: the state to reach.
        now: Unix seconds.
        cause: the fact that leads to CLOSING.
        told: further fields of the step's event.

    Raises:
        DaemonError: INVALID_STATE_TRANSITION.
    """
    source = session.state
    state = advance(source, to)
    started = now if (source, to) == ("READY", "ACTIVE") and session.started_at is None else session.started_at
    fact = cause or _fact_of_step(session, source, to, told)
    changed = msgspec.structs.replace(session, state=state, state_changed_at=now, started_at=started)
    return changed, (fact,)


def _fact_of_step(session: Session, source: State, to: State, told: dict[str, Any]) -> Fact:
    told |= {"agent_id": session.agent_id, "session_id": session.id}
    if (source, to) == ("READY", "ACTIVE") and session.started_at is None:
        return SessionStarted(**told)
    if to == "SUSPENDED":
        return SessionSuspended(**told)
    if (source, to) == ("SUSPENDED", "READY"):
        return SessionResumed(**told)
    if to == "ERROR":
        return SessionError(**told)
    if to == "CLOSED":
        return SessionClosed(**told)
    return SessionStateChanged(from_state=source, to_state=to, **told)


def _end(session: Session, now: int, cause: Fact) -> Changed:
    """Lead a session to its end by its cause: CLOSING, and CLOSED at once unless it has a process, which ends first."""
    if session.state in {"CLOSING", "CLOSED"}:
        return session, (cause,)
    closing, first = transition(session, "CLOSING", now, cause)
    if session.supervised:
        return closing, first
    closed, second = transition(closing, "CLOSED", now)
    return closed, first + second


def end(session: Session, now: int, *, reason: str, reject_window: int | None = None) -> Changed:
    """Revoke a session that is not revoked; inside the reject window of its last renewal, reject that renewal."""
    renewed = session.last_renewed_at
    if reject_window is not None and renewed is not None and now < reject_until(session, reject_window):
        return reject(session, now)
    cause = SessionRevoked(agent_id=session.agent_id, session_id=session.id, reason=reason)
    return _revoke(session, now, reason, cause)


def kill(session: Session, now: int, *, reason: str | None) -> Changed:
    """Revoke a supervised session that is not revoked, and give its process no grace."""
    cause = SessionKilled(agent_id=session.agent_id, session_id=session.id, reason=reason)
    return _revoke(session, now, "killed", cause)


def reject(session: Session, now: int) -> Changed:
    """Revoke a session that is not revoked because its owner rejects its last renewal."""
    cause = SessionRenewalRejected(
        agent_id=session.agent_id, session_id=session.id, renewal_count=session.renewal_count, rejected_at=now
    )
    return _revoke(session, now, "renewal_rejected", cause)


def _revoke(session: Session, now: int, reason: str, cause: Fact) -> Changed:
    ended, facts = _end(session, now, cause)
    return msgspec.structs.replace(ended, revoked_at=now, revoked_reason=reason), facts


def check_lineage(rows: Rows, session: Session, agent: Agent, now: int) -> None:
    """Refuse a session that may not be used any more, or one below such a session: the session check once more.

    How long they were idle is not asked again: the check that let the request pass knew their last use better than
    the rows, and who found them idle since has marked them.

    Raises:
        DaemonError: as the session check does.
    """
    for one in (session, *rows.ancestors):
        check_standing(one, agent, now, now)
    if len(rows.ancestors) != session.depth:  # what was above it is gone
        raise DaemonError(SESSION_REVOKED, details={"reason": PARENT_ENDED})


def use(rows: Rows, now: int) -> Outcome[None]:
    """Make a session ACTIVE because its agent sent a request; everything is checked again on the stored row.

    Raises:
        DaemonError: as the session check does.
    """
    session, agent = rows.session, rows.agent
    if session is None or agent is None:
        return Outcome(answer=None)
    check_lineage(rows, session, agent, now)
    if session.state not in {"READY", "IDLE"} or session.supervised:
        return Outcome(answer=None)
    used, facts = transition(session, "ACTIVE", now)
    return Outcome(answer=None, session=used, facts=facts)


def idle(rows: Rows, now: int, *, quiet_for: int) -> Outcome[int]:
    """Make IDLE what has sent no request for `quiet_for` seconds; the answer is how many."""
    quiet = [session for session in rows.sessions if (session.last_activity or session.created_at) <= now - quiet_for]
    return _many([transition(session, "IDLE", now) for session in quiet])


def expire(rows: Rows, now: int) -> Outcome[int]:
    """Mark sessions whose time is up, once each; the answer is how many."""
    return _many([expired(session, now) for session in rows.sessions if now >= expiry(session)[0]])


def expire_one(rows: Rows, now: int) -> Outcome[None]:
    """Mark one session if its time is up and nobody has marked it yet."""
    session = rows.session
    if session is None or session.revoked_at is not None or session.expired_at is not None:
        return Outcome(answer=None)
    if now < expiry(session)[0]:
        return Outcome(answer=None)
    over, facts = expired(session, now)
    return Outcome(answer=None, session=over, facts=facts)


def expired(session: Session, now: int) -> Changed:
    """Mark a session whose time is up and that is not marked yet."""
    moment, reason = expiry(session)
    cause = SessionExpired(agent_id=session.agent_id, session_id=session.id, expired_at=moment, reason=reason)
    ended, facts = _end(session, now, cause)
    return msgspec.structs.replace(ended, expired_at=moment), facts


def revoke_every(rows: Rows, now: int, *, reason: str) -> Outcome[int]:
    """End every session that the scope picked; the answer is how many."""
    return _many([end(session, now, reason=reason) for session in rows.sessions])


def _many(changed: list[Changed]) -> Outcome[int]:
    return Outcome(
        answer=len(changed),
        sessions=tuple(session for session, _ in changed),
        facts=tuple(fact for _, facts in changed for fact in facts),
    )
