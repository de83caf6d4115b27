"""The laws of delegation, without an engine."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.domain import delegation, descent, session_creation
from daemon.domain.changes import Outcome, Rows, Scope
from daemon.domain.constraints import OPERATIONS, RANGES, allows, limits, narrowed, problems
from daemon.domain.errors import SESSION_LIMIT_EXCEEDED, DaemonError
from daemon.domain.lifecycle import end
from daemon.domain.rows import Agent, Session

AGENT = Agent("a", "agent", "ACTIVE")
NAMES = (*OPERATIONS, "wallet.sign", "wallet.sigr", "wallet.admin", "wallet.read", "sessionX", "x")
PATTERNS = st.lists(
    st.sampled_from(
        [
            *NAMES,
            "*",
            "session.*",
            "*.read",
            "wallet.*",
            "s*",
            "[sw]*",
            "?",
            "session.?*",
            "*.*",
            "*read*",
            "wallet.sig[nread]",
            "wallet.[a.read]*",
            "*.read*",
            "wallet.[r]ead",
        ]
    ),
    max_size=4,
)
CONSTRAINTS = st.fixed_dictionaries(
    {}, optional={key: st.integers(*bounds) for key, bounds in RANGES.items()} | {"allowedOperations": PATTERNS}
)


def session(number: int, parent: Session | None = None) -> Session:
    made = session_creation.blank(str(number), "a", created_by="api", max_renewals=3)
    above = {"parent_id": parent.id, "root_id": parent.tree_id, "depth": parent.depth + 1} if parent else {}
    times = {"created_at": 100, "expires_at": 1000, "absolute_expires_at": 9000, "ttl_seconds": 900, "state": "READY"}
    return msgspec.structs.replace(made, **times, **above)


def asked(**more: Any) -> delegation.AskedChild:
    blank = session_creation.blank("9", "a", created_by="api", max_renewals=3)
    given: dict[str, Any] = {"constraints": {}, "ttl": 900, "absolute_lifetime": 9000, "key": None}
    return delegation.AskedChild(session=blank, mint=lambda _: ("token", "hash"), **(given | more))


def ended_with(top: Session, descendants: list[Session], now: int, *, seen: bool = True) -> Outcome[None]:
    """Return what becomes of everything when a session ends."""
    ended, facts = end(top, now, reason="test")
    outcome = Outcome(answer=None, session=ended, facts=facts)
    return descent.with_descendants(
        Scope(session=top.id, ends=seen), Rows(session=top, descendants=descendants), outcome, now
    )


@given(asked=CONSTRAINTS, bound=CONSTRAINTS)
def test_what_is_left_is_within_both(asked: dict[str, Any], bound: dict[str, Any]) -> None:
    text = msgspec.json.encode(bound).decode()
    left = narrowed(asked, text)
    assert problems(left) == []
    again = narrowed(left, text)
    assert again == {**left, **{key: again[key] for key in left if key == "allowedOperations"}}
    assert set(again.get("allowedOperations", ())) == set(left.get("allowedOperations", ()))
    for key in RANGES:
        named = [one[key] for one in (asked, bound) if key in one]
        assert left.get(key) == (min(named) if named else None)
    known = limits(msgspec.json.encode(left).decode()).allowed_operations
    lists = [tuple(one["allowedOperations"]) for one in (asked, bound) if "allowedOperations" in one]
    for name in NAMES:
        both = all(allows(patterns, name) for patterns in lists)
        assert allows(known, name) <= both, "nothing that either of them forbids, of the daemon's or of others"
        assert allows(known, name) == both or name not in OPERATIONS


@pytest.mark.parametrize("stored", ["[]", "null", "no json", '{"maxRequests": "many"}', None])
def test_what_an_older_version_stored_bounds_nothing_and_breaks_nothing(stored: str | None) -> None:
    assert narrowed({"maxRequests": 7}, stored) == {"maxRequests": 7}


def test_1000_sessions_at_most_live_below_one_that_an_owner_made() -> None:
    with pytest.raises(DaemonError) as refusal:
        delegation.create(Rows(session=session(1), agent=AGENT, relatives=1_000), 200, asked=asked())
    assert refusal.value.kind is SESSION_LIMIT_EXCEEDED
    assert refusal.value.details == {"of": "descendants", "limit": 1_000, "active": 1_000}
    made = delegation.create(Rows(session=session(1), agent=AGENT, relatives=999), 200, asked=asked())
    assert made.new_session is not None


def test_a_change_that_ends_a_session_without_having_seen_its_descendants_is_a_defect() -> None:
    with pytest.raises(AssertionError):
        ended_with(session(1), [], 200, seen=False)


def test_descendants_end_after_those_above_them_and_only_they() -> None:
    top = session(1)
    child, other = session(2, top), session(3)
    outcome = ended_with(top, [child, other, session(4, child)], 200)
    assert [one.id for one in outcome.sessions] == ["2", "4"]
    assert [fact.type for fact in outcome.facts] == ["SESSION_REVOKED", "SESSION_CLOSED"] * 3
    assert {one.revoked_reason for one in outcome.sessions} == {"parent_ended"}


def test_a_descendant_whose_own_time_is_up_has_expired() -> None:
    top = session(1)
    outcome = ended_with(top, [session(2, top)], 1000)
    assert [(one.expired_at, one.revoked_at) for one in outcome.sessions] == [(1000, None)]
