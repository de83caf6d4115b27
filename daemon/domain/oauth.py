"""What other services are told of a token, and what they may do to it."""

import re
from functools import lru_cache

from msgspec import UNSET

from daemon.domain import sessions
from daemon.domain.changes import Outcome, Rows
from daemon.domain.constraints import common, limits
from daemon.domain.errors import DaemonError
from daemon.domain.oauth_views import Introspection
from daemon.domain.rows import Agent, Session
from daemon.domain.status import check_standing
from daemon.domain.tokens import ISSUER

INACTIVE = Introspection(active=False)
"""The one answer about everything that the daemon itself would refuse."""

_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
"""RFC 6749, section 3.3."""


def is_good(session: Session, agent: Agent, now: int, last_activity: int | None, requests: int) -> bool:
    """Return whether the session check would let a session pass, as far as its operation does not matter.

    Args:
        session, agent: whose token is asked about, or one above it.
        now: Unix seconds.
        last_activity: Unix seconds, stored or not.
        requests: that were counted, stored or not.
    """
    most = limits(session.constraints).max_requests
    spent = most is not None and requests >= most
    try:
        check_standing(session, agent, now, last_activity)
    except DaemonError:
        return False
    return not spent


def told(session: Session, agent: Agent, expires_at: int, constraints: tuple[str | None, ...]) -> Introspection:
    """Return what is told of a token that is good.

    Args:
        session, agent: whose it is.
        expires_at: Unix seconds.
        constraints: of the session, then of those above it, as stored.
    """
    return Introspection(
        active=True,
        sub=session.id,
        client_id=agent.id,
        client_name=agent.name,
        scope=_scope(constraints),
        token_type="Bearer",  # noqa: S106 - as RFC 6750 names it
        exp=expires_at,
        iat=session.rotated_at or session.created_at,
        iss=ISSUER,
        session_state=session.state,
        user_id=session.user_id or UNSET,
        workspace_id=session.workspace_id or UNSET,
    )


@lru_cache(maxsize=1024)
def _scope(constraints: tuple[str | None, ...]) -> str:
    """Return what all of them allow, by the patterns that can stand in a scope: no other matches an operation."""
    bound: tuple[str, ...] | None = None
    for one in reversed(constraints):
        allowed = limits(one).allowed_operations
        if allowed is not None:
            bound = allowed if bound is None else common(allowed, bound)
    return "*" if bound is None else " ".join(one for one in bound if _SCOPE_TOKEN.fullmatch(one))


def revoke(rows: Rows, now: int, *, token_hash: str) -> Outcome[None]:
    """End the session of a token; of one that is none any more, nothing changes (RFC 7009, section 2.2).

    The token before the current one counts too: its holder may still be handed the answer of the renewal, and a
    service must not miss the session because its agent has just renewed.

    Args:
        rows: the session that had the token, and its descendants.
        now: Unix seconds.
        token_hash: of the token.
    """
    session = rows.session
    if session is None or token_hash not in {session.token_hash, session.previous_token_hash}:
        return Outcome(answer=None)
    ended = sessions.revoke(rows, now, reason="revoked_by_verifier")
    return Outcome(answer=None, session=ended.session, facts=ended.facts)
