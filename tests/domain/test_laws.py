"""Small laws: ids, clock, chain, cursors, constraints, passwords."""

import json
import uuid
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.domain import process_views, session_views
from daemon.domain.chain import GENESIS, chain_hash
from daemon.domain.clock import DomainClock
from daemon.domain.constraints import allows, limits, problems
from daemon.domain.errors import DaemonError
from daemon.domain.ids import parse_id, uuid7
from daemon.domain.pages import decode_cursor, encode_cursor
from daemon.domain.passwords import check_password
from daemon.domain.process_rows import Process
from daemon.domain.rows import Session
from daemon.domain.views import SessionDetail


def coded(law: Callable[[str], object], text: str) -> str | None:
    """Return the code that a law refuses text with, None if it accepts it; anything else escapes."""
    try:
        law(text)
    except DaemonError as error:
        return error.code
    return None


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_an_id_is_a_uuid_of_version_7_that_sorts_by_time(moment: int, random: bytes) -> None:
    made = uuid.UUID(uuid7(moment, random))
    assert (made.version, made.variant, made.int >> 80) == (7, uuid.RFC_4122, moment)
    assert parse_id(str(made).upper()) == str(made)


@given(st.text(max_size=40))
def test_text_is_an_id_or_a_coded_error(text: str) -> None:
    assert coded(parse_id, text) in {"VALIDATION_ERROR", None}


@given(st.lists(st.none() | st.integers(0, 2**53) | st.text(), min_size=10, max_size=10))
def test_the_chain_hashes_what_the_design_says(row: list[object]) -> None:
    import hashlib

    text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
    assert chain_hash(GENESIS, row) == hashlib.sha256(f"{GENESIS}\n{text}".encode()).hexdigest()


@given(st.integers(0, 10**11), st.uuids())
def test_a_cursor_comes_back(moment: int, row: uuid.UUID) -> None:
    assert decode_cursor(encode_cursor(moment, str(row))) == (moment, str(row))


@given(st.text(max_size=60))
def test_no_cursor_makes_more_than_a_coded_error(text: str) -> None:
    assert coded(decode_cursor, text) in {"VALIDATION_ERROR", None}


@given(st.lists(st.integers(-200_000, 200_000), max_size=30))
def test_the_clock_never_runs_backwards_but_for_a_reset(steps: list[int]) -> None:
    wall = [1_000_000_000.0]
    clock = DomainClock(lambda: wall[0], lambda: 0.0)
    for step in steps:
        before = clock.now()
        wall[0] += step
        after = clock.now()
        assert after >= before or clock.take_reset()
        assert after == wall[0] or 0 < after - wall[0] <= 86_400
        assert clock.held_back() == after - wall[0]


def test_the_clock_starts_from_the_newest_event() -> None:
    clock = DomainClock(lambda: 1000.0, lambda: 0.0)
    clock.start_from(4600)
    assert (clock.now(), clock.take_reset()) == (4600, False)
    clock.start_from(200_000)
    assert (clock.now(), clock.take_reset(), clock.take_reset()) == (1000, True, False)


@given(st.dictionaries(st.text(max_size=8), st.recursive(st.none() | st.text(), st.lists, max_leaves=50), max_size=5))
def test_unknown_constraints_are_kept_and_constrain_nothing(constraints: dict[str, object]) -> None:
    known = {"maxRenewals", "renewalRejectWindow", "idleTimeout", "maxRequests", "requestsPerMinute"}
    if not constraints.keys() & (known | {"allowedOperations"}):
        assert problems(constraints) == []
        assert limits(json.dumps(constraints)).max_renewals is None


@pytest.mark.parametrize("text", ["[]", "nonsense", '{"maxRenewals": "many"}', '{"idleTimeout": 1.5}'])
def test_constraints_of_an_older_version_that_do_not_decode_constrain_nothing(text: str) -> None:
    assert limits(text) == limits(None)


def test_allowed_operations_are_glob_patterns() -> None:
    assert allows(None, "session.read")
    assert allows(("session.*",), "session.read")
    assert not allows(("session.*",), "sessions.renew")
    assert not allows((), "session.read")


@pytest.mark.parametrize(
    "bad", ["short", " leading blank", "trailing blank ", "with\x00control", "x" * 1025, "\ud800" * 8]
)
def test_what_may_not_be_a_master_password(bad: str) -> None:
    with pytest.raises(DaemonError) as refused:
        check_password(bad)
    assert bad not in refused.value.detail


def test_a_master_password_is_normalised() -> None:
    import unicodedata

    korean = "한글 비밀번호입니다"
    assert check_password(unicodedata.normalize("NFD", korean)) == korean


def test_views_of_a_session_put_each_value_under_its_own_name() -> None:
    values = {name: number for number, name in enumerate(Session.__struct_fields__, 100)}
    values |= {"constraints": None, "usage_stats": None, "metadata": "{}", "revoked_at": None, "idle_timeout": None}
    session = Session(**values)  # type: ignore[arg-type]
    running = process_views.view(
        session, Process("s", "h", '{"command":["cat"],"workingDir":"/w"}', None, "x"), seen=True
    )
    counts = session_views.Activity(7, 8)
    shown = session_views.own(session, counts, 0, reject_window=300, agent_name="a", process=running)
    renamed = {"ttl": "ttl_seconds"}
    for name in SessionDetail.__struct_fields__:
        stored = renamed.get(name, name)
        if stored in values and name not in {"metadata", "request_count", "last_activity"}:
            value = getattr(shown, name)
            assert (None if value == msgspec.Raw(b"null") else value) == values[stored], name
    assert (shown.request_count, shown.last_activity, shown.process, shown.agent_name) == (7, 8, running, "a")
    whole = session_views.detail(session, 0, 300, running)
    counted = {"request_count": session.request_count, "last_activity": session.last_activity}
    same = [name for name in SessionDetail.__struct_fields__ if name not in counted]
    assert [getattr(whole, name) for name in same] == [getattr(shown, name) for name in same]
    assert {name: getattr(whole, name) for name in counted} == counted
