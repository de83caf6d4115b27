"""A session's standing: may its token be used, and until when?"""

from typing import Literal

from daemon.domain.constraints import limits
from daemon.domain.errors import AGENT_SUSPENDED, SESSION_REVOKED, SESSION_SUSPENDED, TOKEN_EXPIRED, DaemonError
from daemon.domain.rows import Agent, Session
from daemon.domain.views import Status


def expiry(session: Session, last_activity: int | None = None) -> tuple[int, Literal["ttl", "idle"]]:
    """Return when the session's time is up, in Unix seconds, and why: `ttl` or `idle`.

    Args:
        session: the stored row.
        last_activity: what is not flushed yet; the row's when None.
    """
    if session.idle_timeout is not None:
        used = last_activity or session.last_activity or session.created_at
        idle = max(used, session.created_at) + session.idle_timeout
        if idle < session.expires_at:
            return idle, "idle"
    return session.expires_at, "ttl"


def status(session: Session, now: int, last_activity: int | None = None) -> Status:
    """Return whether the session's token may be used: derived, never stored."""
    if session.revoked_at is not None:
        return "REVOKED"
    if session.expired_at is not None or now >= expiry(session, last_activity)[0]:
        return "EXPIRED"
    return "ACTIVE"


def check_alive(session: Session, now: int) -> None:
    """Refuse a session whose own time is over; the first half of the session check.

    Raises:
        DaemonError: SESSION_REVOKED, TOKEN_EXPIRED.
    """
    if session.revoked_at is not None:
        raise DaemonError(SESSION_REVOKED, details={"reason": session.revoked_reason})
    if now >= session.expires_at:
        raise DaemonError(TOKEN_EXPIRED, details={"reason": "ttl"})


def check_usable(session: Session, agent: Agent, now: int, last_activity: int | None = None) -> None:
    """Refuse a session that may not be used now; the second half of the session check.

    Raises:
        DaemonError: TOKEN_EXPIRED (idle), AGENT_SUSPENDED, SESSION_SUSPENDED.
    """
    if session.expired_at is not None or (
        session.idle_timeout is not None and now >= expiry(session, last_activity)[0]
    ):
        raise DaemonError(TOKEN_EXPIRED, "The session was idle for too long.", details={"reason": "idle"})
    if agent.status != "ACTIVE":
        raise DaemonError(AGENT_SUSPENDED)
    if session.state == "SUSPENDED":
        raise DaemonError(SESSION_SUSPENDED)


def check_standing(session: Session, agent: Agent, now: int, last_activity: int | None = None) -> None:
    """Refuse a session that may not be used now, for whatever reason: the session check, but for its constraints.

    Raises:
        DaemonError: SESSION_REVOKED, TOKEN_EXPIRED, AGENT_SUSPENDED, SESSION_SUSPENDED.
    """
    check_alive(session, now)
    check_usable(session, agent, now, last_activity)


def lasts_until(session: Session, parent: Session | None) -> int:
    """Return until when a session can be made to last at most: its absolute end, and what its parent has now."""
    if parent is None:
        return session.absolute_expires_at
    return min(session.absolute_expires_at, parent.expires_at)


def reject_until(session: Session, default_window: int) -> int:
    """Return until when the owner is told the last renewal can be rejected (Unix seconds); 0 if never renewed."""
    if session.last_renewed_at is None:
        return 0
    return session.last_renewed_at + (limits(session.constraints).renewal_reject_window or default_window)


def renewable_at(session: Session) -> int:
    """Return from when on the session may be renewed: half of its term after the last renewal (Unix seconds).

    The term of a child may have been cut at its parent's expiry: half of a whole one would be after its end.
    """
    since = session.last_renewed_at or session.created_at
    term = session.ttl_seconds
    if session.parent_id is not None:
        term = min(term, session.expires_at - since)
    return since + term // 2
