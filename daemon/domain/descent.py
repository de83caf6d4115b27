"""The law of descent: nothing that descends from a session outlives it."""

from collections.abc import Iterable
from typing import Any

import msgspec

from daemon.domain import lifecycle
from daemon.domain.changes import Outcome, Rows, Scope
from daemon.domain.events import Fact
from daemon.domain.rows import Session
from daemon.domain.status import expiry


def with_descendants(scope: Scope, rows: Rows, outcome: Outcome[Any], now: int) -> Outcome[Any]:
    """Return what was decided, and with each session that it ends the end of everything that descends from that one.

    Every engine applies it to every decision, so that no way of ending a session can forget its descendants.

    Args:
        scope: what the decision asked to see.
        rows: what it saw.
        outcome: what it decided.
        now: Unix seconds.
    """
    ended = _ended(rows, outcome)
    if not ended:
        return outcome
    if not scope.sees_descendants:
        raise AssertionError("a change that ends sessions must ask to see their descendants")
    known = {one.id for one in outcome.sessions}
    if outcome.session is not None:
        known.add(outcome.session.id)
    more, facts = list(outcome.sessions), list(outcome.facts)
    for child in rows.descendants:  # nearer ones first, so that a parent's end is decided before its child's
        if child.parent_id in ended and child.id not in known:
            over, told = _end(child, now)
            ended.add(child.id)
            more.append(over)
            facts += told
    if len(more) == len(outcome.sessions):
        return outcome
    return msgspec.structs.replace(outcome, sessions=tuple(more), facts=tuple(facts))


def living(of: Iterable[str], sessions: Iterable[Session]) -> list[Session]:
    """Return those sessions that live and descend from others, nearer ones first.

    Args:
        of: ids of those others.
        sessions: at least all that descend from them.
    """
    family, found = set(of), []
    for one in sorted(sessions, key=lambda one: one.depth):
        if one.parent_id in family and not one.over:
            family.add(one.id)
            found.append(one)
    return found


def _ended(rows: Rows, outcome: Outcome[Any]) -> set[str]:
    ended = set()
    if outcome.session is not None and outcome.session.over and rows.session is not None and not rows.session.over:
        ended.add(outcome.session.id)
    if outcome.sessions:
        alive = {one.id for one in rows.sessions if not one.over}
        ended |= {one.id for one in outcome.sessions if one.over and one.id in alive}
    return ended


def _end(child: Session, now: int) -> tuple[Session, tuple[Fact, ...]]:
    """End a child; one whose own time is up as well has expired."""
    if now >= expiry(child)[0]:
        return lifecycle.expired(child, now)
    return lifecycle.end(child, now, reason=lifecycle.PARENT_ENDED)
