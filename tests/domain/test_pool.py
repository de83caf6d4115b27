"""The laws of the pool: it is never exceeded, and who makes room has nothing to do and can go on later."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.domain import pool
from daemon.domain.errors import DaemonError
from daemon.domain.pool import Limits
from daemon.domain.process_rows import Place
from daemon.domain.states import STATES, State
from tests.domain.supervised_rows import NOW, details, place


def refused(places: list[Place], limits: Limits, session: str = "new", agent: str = "a") -> DaemonError:
    with pytest.raises(DaemonError) as caught:
        pool.make_room(places, session, agent, limits)
    assert caught.value.code == "PROCESS_LIMIT_EXCEEDED"
    assert caught.value.retry_after == 5
    return caught.value


def test_below_both_limits_nobody_makes_room() -> None:
    assert pool.make_room([], "new", "a", Limits(1, 1)) is None
    taken = [place("1"), place("2", "b"), place("3", "b")]
    assert pool.make_room(taken, "new", "a", Limits(4, 2)) is None


def test_a_process_that_has_its_place_already_needs_no_other() -> None:
    taken = [place("1", state="ACTIVE"), place("2", "b", state="ACTIVE")]
    assert pool.make_room(taken, "1", "a", Limits(2, 1)) is None


def test_the_process_that_has_been_idle_for_longest_makes_room() -> None:
    taken = [place("1", since=NOW), place("2", since=NOW - 9), place("3", state="ACTIVE", since=NOW - 99)]
    assert pool.make_room(taken, "new", "b", Limits(3, 3)) == taken[1]


def test_one_that_waits_for_its_first_message_is_as_idle_as_one_that_waits_for_its_next() -> None:
    taken = [place("1", since=NOW), place("2", state="READY", since=NOW - 9)]
    assert pool.make_room(taken, "new", "b", Limits(2, 2)) == taken[1]


def test_of_those_equally_idle_the_oldest_makes_room() -> None:
    taken = [place("2"), place("1"), place("3")]
    assert pool.make_room(taken, "new", "b", Limits(3, 3)) == taken[1]


def test_an_agent_at_its_limit_makes_room_for_itself_however_idle_others_are() -> None:
    taken = [place("1", "b", since=NOW - 99), place("2", since=NOW)]
    assert pool.make_room(taken, "new", "a", Limits(2, 1)) == taken[1]


def test_an_agent_below_its_limit_may_take_the_place_of_another_agents_process() -> None:
    taken = [place("1", "b", since=NOW - 99), place("2", state="ACTIVE")]
    assert pool.make_room(taken, "new", "a", Limits(2, 2)) == taken[0]


@pytest.mark.parametrize("state", [state for state in STATES if state not in {"READY", "IDLE"}])
def test_what_has_something_to_do_makes_no_room(state: State) -> None:
    taken = [place("1", state=state)]
    assert details(refused(taken, Limits(9, 1))) == {"limit": "processes.max_per_agent", "most": 1}
    assert details(refused(taken, Limits(1, 9))) == {"limit": "processes.max_processes", "most": 1}


def test_a_command_that_keeps_no_conversation_makes_no_room() -> None:
    assert details(refused([place("1", command=["cat"])], Limits(1, 1))) == {
        "limit": "processes.max_per_agent",
        "most": 1,
    }
    both = [place("1", command=["cat"], since=NOW - 9), place("2")]
    assert pool.make_room(both, "new", "a", Limits(2, 2)) == both[1]


PLACES = st.lists(
    st.builds(
        place,
        st.uuids().map(str),
        st.sampled_from("abc"),
        st.sampled_from(STATES),
        st.integers(0, 9),
        st.sampled_from(["claude", ["cat"]]),
    ),
    max_size=8,
)


@given(PLACES, st.builds(Limits, st.integers(1, 6), st.integers(1, 6)))
def test_with_room_made_no_limit_that_was_kept_before_is_exceeded(places: list[Place], limits: Limits) -> None:
    own = [one for one in places if one.agent_id == "a"]
    kept = len(places) <= limits.everybody and len(own) <= limits.agent
    try:
        room = pool.make_room(places, "new", "a", limits)
    except DaemonError:
        assert len(places) >= limits.everybody or len(own) >= limits.agent
        return
    assert room is None or (room in places and room.state in {"READY", "IDLE"} and pool.can_rest(room.config))
    left = [one for one in places if one != room]
    if kept:
        assert len(left) < limits.everybody
        assert sum(one.agent_id == "a" for one in left) < limits.agent
    if len(places) < limits.everybody and len(own) < limits.agent:
        assert room is None


def test_who_makes_room_is_told_so() -> None:
    (fact,) = pool.given_up(place("1", "b"))
    assert (fact.type, fact.agent_id, fact.session_id) == ("SESSION_UPDATED", "b", "1")
    assert pool.given_up(None) == ()
