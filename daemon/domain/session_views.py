"""Sessions as the API shows them."""

import msgspec

from daemon.domain.rows import Session
from daemon.domain.status import reject_until, renewable_at, status
from daemon.domain.views import OwnSession, SessionDetail, SessionSummary


class Activity(msgspec.Struct, frozen=True):
    """How often and when a session was used, including what is not stored yet."""

    requests: int
    last: int | None


def summary(session: Session, now: int) -> SessionSummary:
    """Return the session as it stands in lists."""
    return SessionSummary(
        id=session.id,
        agent_id=session.agent_id,
        status=status(session, now),
        state=session.state,
        renewal_count=session.renewal_count,
        max_renewals=session.max_renewals,
        expires_at=session.expires_at,
        absolute_expires_at=session.absolute_expires_at,
        created_at=session.created_at,
        last_renewed_at=session.last_renewed_at,
        last_activity=session.last_activity,
        request_count=session.request_count,
    )


def detail(session: Session, now: int, reject_window: int) -> SessionDetail:
    """Return the whole session.

    Args:
        session: its activity is stored.
        now: Unix seconds.
        reject_window: seconds; the default where the session's constraints name none.
    """
    return SessionDetail(
        id=session.id,
        agent_id=session.agent_id,
        status=status(session, now),
        state=session.state,
        renewal_count=session.renewal_count,
        max_renewals=session.max_renewals,
        expires_at=session.expires_at,
        absolute_expires_at=session.absolute_expires_at,
        created_at=session.created_at,
        last_renewed_at=session.last_renewed_at,
        last_activity=session.last_activity,
        request_count=session.request_count,
        user_id=session.user_id,
        workspace_id=session.workspace_id,
        metadata=msgspec.Raw(session.metadata),
        constraints=_raw(session.constraints),
        ttl=session.ttl_seconds,
        generation=session.generation,
        reject_window_expiry=reject_until(session, reject_window) or None,
        revoked_at=session.revoked_at,
        revoked_reason=session.revoked_reason,
        state_changed_at=session.state_changed_at,
        created_by=session.created_by,
        usage=_raw(session.usage_stats),
    )


def own(session: Session, activity: Activity, now: int, reject_window: int, agent_name: str) -> OwnSession:
    """Return the session as its agent sees it; spelled out, because it is answered on the hot path."""
    return OwnSession(
        id=session.id,
        agent_id=session.agent_id,
        status=status(session, now, activity.last),
        state=session.state,
        renewal_count=session.renewal_count,
        max_renewals=session.max_renewals,
        expires_at=session.expires_at,
        absolute_expires_at=session.absolute_expires_at,
        created_at=session.created_at,
        last_renewed_at=session.last_renewed_at,
        last_activity=activity.last,
        request_count=activity.requests,
        user_id=session.user_id,
        workspace_id=session.workspace_id,
        metadata=msgspec.Raw(session.metadata),
        constraints=_raw(session.constraints),
        ttl=session.ttl_seconds,
        generation=session.generation,
        reject_window_expiry=reject_until(session, reject_window) or None,
        revoked_at=session.revoked_at,
        revoked_reason=session.revoked_reason,
        state_changed_at=session.state_changed_at,
        created_by=session.created_by,
        usage=_raw(session.usage_stats),
        agent_name=agent_name,
        renewable_at=renewable_at(session),
        remaining_renewals=max(0, session.max_renewals - session.renewal_count),
    )


def _raw(text: str | None) -> msgspec.Raw | None:
    return msgspec.Raw(text) if text is not None else None
