"""Sessions as the API shows them."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from daemon.domain.process_views import ProcessView
from daemon.domain.rows import Session
from daemon.domain.status import reject_until, renewable_at, status
from daemon.domain.views import OwnSession, SessionDetail, SessionSummary, SessionTree

_NULL = msgspec.Raw(b"null")


class Activity(msgspec.Struct, frozen=True):
    """How often and when a session was used, including what is not stored yet."""

    requests: int
    last: int | None


def summary(session: Session, now: int) -> SessionSummary:
    """Return the session as it stands in lists."""
    return SessionSummary(*_summary(session, _stored(session), now))


def detail(session: Session, now: int, reject_window: int, process: ProcessView | None) -> SessionDetail:
    """Return the whole session.

    Args:
        session: its activity is stored.
        now: Unix seconds.
        reject_window: seconds; the default where the session's constraints name none.
        process: what runs for it.
    """
    return SessionDetail(*(*_summary(session, _stored(session), now), *_rest(session, reject_window), process))


def own(
    session: Session, activity: Activity, now: int, *, reject_window: int, agent_name: str, process: ProcessView | None
) -> OwnSession:
    """Return the session as its agent sees it."""
    mine = (process, agent_name, renewable_at(session), max(0, session.max_renewals - session.renewal_count))
    return OwnSession(*(_summary(session, activity, now) + _rest(session, reject_window) + mine))


def trees(tops: Sequence[Session], below: Iterable[Session], now: int) -> list[SessionTree]:
    """Return sessions, each with all that is below it.

    Args:
        tops: the sessions.
        below: at least everything below them.
        now: Unix seconds.
    """
    known: dict[str, SessionTree] = {}
    for one in sorted((*tops, *below), key=lambda one: (one.created_at, one.id), reverse=True):
        known.setdefault(one.id, SessionTree(*(*_summary(one, _stored(one), now), one.depth, [])))
    for one in sorted(below, key=lambda one: (one.created_at, one.id), reverse=True):
        if one.parent_id in known:
            known[one.parent_id].children.append(known[one.id])
    return [known[one.id] for one in tops]


def _stored(session: Session) -> Activity:
    return Activity(session.request_count, session.last_activity)


def _summary(session: Session, activity: Activity, now: int) -> tuple[Any, ...]:
    """Return the fields of `SessionSummary` in their order: the hot path builds no dict."""
    return (
        session.id,
        session.agent_id,
        status(session, now, activity.last),
        session.state,
        session.renewal_count,
        session.max_renewals,
        session.expires_at,
        session.absolute_expires_at,
        session.created_at,
        session.last_renewed_at,
        activity.last,
        activity.requests,
    )


def _rest(session: Session, reject_window: int) -> tuple[Any, ...]:
    """Return what `SessionDetail` has beyond the summary, but for its process, in its order."""
    return (
        session.user_id,
        session.workspace_id,
        msgspec.Raw(session.metadata),
        _raw(session.constraints),
        session.ttl_seconds,
        session.generation,
        reject_until(session, reject_window) or None,
        session.revoked_at,
        session.revoked_reason,
        session.state_changed_at,
        session.created_by,
        _raw(session.usage_stats),
        session.parent_id,
        session.depth,
    )


def _raw(text: str | None) -> msgspec.Raw:
    return msgspec.Raw(text) if text is not None else _NULL
