"""Renewal: the agent exchanges its token for the next generation, inside hard guards.

Rotation with reuse detection follows RFC 9700, section 4.14.2; the sealed answer makes a lost reply harmless.
"""

from collections.abc import Callable, Sequence

import msgspec

from daemon.domain import auto_stop
from daemon.domain.changes import Outcome, Rows
from daemon.domain.errors import (
    RENEWAL_CONFLICT,
    RENEWAL_LIMIT_REACHED,
    RENEWAL_TOO_EARLY,
    SESSION_ABSOLUTE_LIFETIME_EXCEEDED,
    DaemonError,
)
from daemon.domain.facts.sessions import SessionExpiringSoon, SessionRenewed, TokenReused
from daemon.domain.lifecycle import end
from daemon.domain.rows import Session
from daemon.domain.sessions import Mint, require_usable
from daemon.domain.status import lasts_until, reject_until, renewable_at, status
from daemon.domain.views import RenewedSession

WARN_RENEWALS = 3
"""Remaining renewals at which the owner is warned."""
WARN_SECONDS = 86_400
"""Seconds before the absolute end at which the owner is warned."""

_PARENT_SECONDS = 10
"""Seconds after which a child may ask again whether its parent has been renewed."""

Seal = Callable[[RenewedSession], bytes]
"""Encrypts an answer so that only the holder of the previous token can read it: pure, its nonce is made before."""


def check_guards(session: Session, now: int, ancestors: Sequence[Session] = ()) -> None:
    """Refuse a renewal by the guards 2 to 4, in this order.

    Args:
        session: to be renewed.
        now: Unix seconds.
        ancestors: of a child, its parent first; it can be given no more than they have.

    Raises:
        DaemonError: RENEWAL_LIMIT_REACHED, SESSION_ABSOLUTE_LIFETIME_EXCEEDED, RENEWAL_TOO_EARLY.
    """
    most = min(one.max_renewals for one in (session, *ancestors))
    if session.renewal_count >= most:
        details = {"renewalCount": session.renewal_count, "maxRenewals": most}
        raise DaemonError(RENEWAL_LIMIT_REACHED, details=details)
    _check_end(session)
    wait = renewable_at(session) - now
    if wait > 0:
        raise DaemonError(RENEWAL_TOO_EARLY, details={"retryAfter": wait}, retry_after=wait)
    if ancestors and session.expires_at >= lasts_until(session, ancestors[0]):
        _wait_for(ancestors, now)


def _check_end(session: Session) -> None:
    if session.expires_at >= session.absolute_expires_at:
        raise DaemonError(
            SESSION_ABSOLUTE_LIFETIME_EXCEEDED, details={"absoluteExpiresAt": session.absolute_expires_at}
        )


def _wait_for(ancestors: Sequence[Session], now: int) -> None:
    """Refuse the renewal of a child to which only the renewal of its parent can give more time.

    Raises:
        DaemonError: RENEWAL_TOO_EARLY, or RENEWAL_LIMIT_REACHED, SESSION_ABSOLUTE_LIFETIME_EXCEEDED where none can be.
    """
    moment = now + _PARENT_SECONDS
    for number, one in enumerate(ancestors, 1):
        if one.renewal_count >= one.max_renewals:
            detail = "A session above this one cannot be renewed any more, and this one lasts no longer."
            details = {"renewalCount": one.renewal_count, "maxRenewals": one.max_renewals}
            raise DaemonError(RENEWAL_LIMIT_REACHED, detail, details=details)
        _check_end(one)
        moment = max(moment, renewable_at(one))
        if one.expires_at < lasts_until(one, next(iter(ancestors[number:]), None)):
            break  # it waits for none of those above it
    wait = moment - now
    detail = "The session lasts as long as its parent, which has to be renewed first."
    raise DaemonError(RENEWAL_TOO_EARLY, detail, details={"retryAfter": wait}, retry_after=wait)


def renew(
    rows: Rows, now: int, *, presented: str, retry_window: int, reject_window: int, mint: Mint, seal: Seal
) -> Outcome[RenewedSession | bytes]:
    """Make the next generation, or hand back the sealed answer of the renewal that won the race.

    Args:
        rows: the session, its agent and its sealed answer.
        now: Unix seconds.
        presented: hash of the token that asked; it was the current generation when it was checked.
        retry_window: seconds.
        reject_window: seconds; the default where the session's constraints name none.
        mint: makes the next token.
        seal: encrypts the answer under the presented token.

    Raises:
        DaemonError: as the session check and the guards do; RENEWAL_CONFLICT after a lost race.
    """
    session = require_usable(rows, now)
    if session.token_hash != presented:
        return Outcome(answer=_answer_of_winner(rows, session, presented, retry_window))
    check_guards(session, now, rows.ancestors)
    following = next_generation(session, now, rows.parent)
    token, digest = mint(following)
    following = msgspec.structs.replace(following, token_hash=digest)
    answer = RenewedSession(
        id=session.id,
        token=token,
        expires_at=following.expires_at,
        renewal_count=following.renewal_count,
        max_renewals=following.max_renewals,
        absolute_expires_at=following.absolute_expires_at,
        last_renewed_at=now,
    )
    fact = _renewed(following, reject_window)
    following, warning = warned(following, now)
    return Outcome(answer=answer, session=following, retry_answer=seal(answer), facts=(fact, *warning))


def warned(session: Session, now: int) -> tuple[Session, tuple[SessionExpiringSoon, ...]]:
    """Return the session, and once in its life the fact that renewals will soon give it no more time.

    Of a child nothing is told: it ends with the session above it, whose owner is told of that one.
    """
    remaining = max(0, session.max_renewals - session.renewal_count)
    near = remaining <= WARN_RENEWALS or session.absolute_expires_at - now <= WARN_SECONDS
    if session.expiry_warned_at is not None or session.parent_id is not None or not near:
        return session, ()
    fact = SessionExpiringSoon(
        agent_id=session.agent_id,
        session_id=session.id,
        expires_at=session.expires_at,
        absolute_expires_at=session.absolute_expires_at,
        remaining_renewals=remaining,
    )
    return msgspec.structs.replace(session, expiry_warned_at=now), (fact,)


def warn(rows: Rows, now: int) -> Outcome[None]:
    """Warn of the end of a session whose renewal was refused for good."""
    if rows.session is None or status(rows.session, now) != "ACTIVE":
        return Outcome(answer=None)
    session, facts = warned(rows.session, now)
    return Outcome(answer=None, session=session, facts=facts)


def _answer_of_winner(rows: Rows, session: Session, presented: str, retry_window: int) -> bytes:
    unused = session.used_generation < session.generation
    if session.previous_token_hash == presented and rows.retry_answer and (retry_window > 0 or unused):
        return rows.retry_answer
    raise DaemonError(RENEWAL_CONFLICT)


def next_generation(session: Session, now: int, parent: Session | None = None) -> Session:
    """Return the session after a renewal at this moment, but for its token; a child's ends no later than its parent."""
    until = max(session.expires_at, min(now + session.ttl_seconds, lasts_until(session, parent)))
    return msgspec.structs.replace(
        session,
        generation=session.generation + 1,
        previous_token_hash=session.token_hash,
        renewal_count=session.renewal_count + 1,
        last_renewed_at=now,
        rotated_at=now,
        expires_at=until,
    )


def _renewed(session: Session, reject_window: int) -> SessionRenewed:
    return SessionRenewed(
        agent_id=session.agent_id,
        session_id=session.id,
        renewal_count=session.renewal_count,
        max_renewals=session.max_renewals,
        generation=session.generation,
        expires_at=session.expires_at,
        absolute_expires_at=session.absolute_expires_at,
        reject_window_expiry=reject_until(session, reject_window),
    )


def report_reuse(
    rows: Rows, now: int, *, generation: int | None, action: str, auto_stop_threshold: int
) -> Outcome[None]:
    """Record that a superseded token came back, once per session and only while its status is ACTIVE.

    Args:
        rows: the session, its agent and the agent's minutes with an incident.
        now: Unix seconds.
        generation: of the token, where it is known.
        action: `revoke` ends the session, `notify` only records.
        auto_stop_threshold: minutes with an incident that suspend the agent.
    """
    session = rows.session
    if session is None or session.reuse_reported_at is not None or status(session, now) != "ACTIVE":
        return Outcome(answer=None)
    fact = TokenReused(
        agent_id=session.agent_id,
        session_id=session.id,
        generation=generation,
        current_generation=session.generation,
        action=action,
    )
    reported = msgspec.structs.replace(session, reuse_reported_at=now)
    ended, facts = end(reported, now, reason="token_reused") if action == "revoke" else (reported, ())
    stopped, stop = auto_stop.consider(rows, now, auto_stop_threshold)
    return Outcome(answer=None, session=ended, agent=stopped, facts=(fact, *facts, *stop))
