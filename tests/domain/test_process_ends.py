"""The laws of a process's end: what closes its session, what it lives on after, and what begins again when."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.domain import process_ends, processes
from daemon.domain.changes import Outcome
from daemon.domain.process_ends import LONGEST_BACKOFF, MAX_FAILURES, STEADY, End
from daemon.domain.process_rows import Process, Turn
from daemon.domain.processes import Started
from daemon.domain.rows import Session
from daemon.domain.states import STATES, State
from tests.domain.supervised_rows import NOW, config, kinds, process, rows, session, shown, told, turn

RESTARTING = config(restart="on-failure")
GONE: dict[str, Any] = {"pid": None, "wrapper_pid": None, "wrapper_started": None, "boot_id": None}


def finished(of: Session, its: Process, *turns: Turn, now: int = NOW, **end: Any) -> Outcome[None]:
    return process_ends.finished(rows(of, its, *turns), now, end=End(**end))


def after(outcome: Outcome[Any]) -> tuple[Session, Process]:
    assert outcome.session is not None
    assert outcome.process is not None
    return outcome.session, outcome.process


def ended(its: Process, **more: Any) -> Process:
    return msgspec.structs.replace(its, **{**GONE, "ended_at": NOW, **more})


# --- over and done


@pytest.mark.parametrize("state", ["CLOSED", "ERROR"])
def test_an_end_that_is_known_already_changes_nothing(state: State) -> None:
    assert finished(session(state), process(), exit_code=1) == Outcome(answer=None)


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        ({"revoked_at": NOW, "revoked_reason": "manual_revoke"}, "revoked"),
        ({"revoked_at": NOW, "revoked_reason": "shutdown"}, "revoked"),
        ({"revoked_at": NOW, "revoked_reason": "killed"}, "killed"),
        ({"revoked_at": NOW, "revoked_reason": "kill_switch"}, "kill_switch"),
        ({"revoked_at": NOW, "revoked_reason": "duration"}, "duration"),
        ({"revoked_at": NOW, "revoked_reason": "process_exited"}, "exited"),
        ({"expired_at": NOW}, "expired"),
    ],
)
def test_a_closing_session_is_closed_and_says_why(cause: dict[str, Any], reason: str) -> None:
    made = finished(session("CLOSING", **cause), process(), signal=15)
    of, its = after(made)
    assert (of.state, its) == ("CLOSED", ended(process(), signal=15, reason=reason))
    assert told(made) == [("SESSION_CLOSED", {"reason": reason, "signal": 15})]


def test_a_limit_that_ended_the_process_is_the_reason_whatever_ended_the_session() -> None:
    made = finished(session("CLOSING", revoked_at=NOW, revoked_reason="manual_revoke"), process(), reason="memory")
    assert after(made)[1].reason == "memory"


@pytest.mark.parametrize(("entered", "first"), [(True, "UNKNOWN"), (False, "INTERRUPTED")])
def test_no_turn_of_a_closed_session_is_left(entered: bool, first: str) -> None:
    of = session("CLOSING", revoked_at=NOW, revoked_reason="killed")
    made = finished(of, process(), turn(1, "RUNNING"), turn(2), signal=9, entered=entered)
    assert shown(made) == [(1, first, None), (2, "INTERRUPTED", None)]
    assert told(made) == [
        ("SESSION_CLOSED", {"reason": "killed", "signal": 9, "turn": 1, "outcome": first.lower()}),
    ]


@pytest.mark.parametrize("state", ["READY", "ACTIVE", "IDLE", "SUSPENDED"])
def test_a_command_that_ends_well_ends_its_session(state: State) -> None:
    made = finished(session(state), process(config=RESTARTING), turn(1), exit_code=0)
    of, its = after(made)
    assert (of.state, of.revoked_at, of.revoked_reason, its.reason) == ("CLOSED", NOW, "process_exited", "exited")
    assert told(made) == [
        ("SESSION_REVOKED", {"reason": "process_exited"}),
        ("SESSION_CLOSED", {"reason": "exited", "exit_code": 0}),
    ]
    assert shown(made) == [(1, "INTERRUPTED", None)]


# --- the session lives on


@pytest.mark.parametrize(
    ("state", "rest", "then"),
    [
        ("READY", "pool", "pool"),
        ("IDLE", "pool", "pool"),
        ("SUSPENDED", "idle", "idle"),
        ("IDLE", "restart", None),
        ("SUSPENDED", "restart", None),
    ],
)
@pytest.mark.parametrize("end", [{"exit_code": 0}, {"exit_code": 1}, {"signal": 15}, {"reason": "memory", "signal": 9}])
def test_a_process_that_was_to_rest_leaves_its_session_as_it_is(
    state: State, rest: Any, then: Any, end: dict[str, Any]
) -> None:
    before = process(rest=rest, config=RESTARTING, failures=3)
    made = finished(session(state), before, turn(7), **end)
    of, its = after(made)
    known = {name: value for name, value in end.items() if name != "reason"}
    assert (of, its) == (session(state), ended(before, rest=then, reason=rest, **known))
    assert (told(made), made.turns) == ([("SESSION_UPDATED", {"fields": ("process",)})], ())


def test_a_process_that_is_wanted_again_before_it_has_ended_begins_again() -> None:
    made = finished(session("ACTIVE"), process(), turn(1, "RUNNING"), signal=15, on_purpose=True, entered=False)
    of, its = after(made)
    assert (of.state, its.rest, its.reason, made.turns) == ("ACTIVE", None, "restart", ())
    assert processes.is_wanted(of, its, NOW)


def test_a_turn_whose_message_had_reached_a_process_that_was_to_rest_is_not_begun_twice() -> None:
    made = finished(session("ACTIVE"), process(rest="restart"), turn(1, "RUNNING"), turn(2), exit_code=0)
    assert (after(made)[0].state, shown(made)) == ("IDLE", [(1, "UNKNOWN", None)])
    change = {"from_state": "ACTIVE", "to_state": "IDLE", "turn": 1, "outcome": "unknown"}
    assert told(made) == [("SESSION_STATE_CHANGED", change)]
    stopped = finished(session("SUSPENDED"), process(rest="restart"), turn(1, "RUNNING"))
    assert (after(stopped)[0].state, shown(stopped), kinds(stopped)) == (
        "SUSPENDED", [(1, "UNKNOWN", None)], ["SESSION_UPDATED"],
    )  # fmt: skip


# --- failures


@pytest.mark.parametrize("state", [state for state in STATES if state not in {"CLOSING", "CLOSED", "ERROR"}])
@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ({"exit_code": 1}, "crashed"),
        ({"signal": 11}, "crashed"),
        ({"exit_code": 0, "reason": "memory"}, "memory"),
        ({"reason": "lost"}, "lost"),
        ({"reason": "spawn", "entered": False}, "spawn"),
    ],
)
def test_every_other_end_is_a_failure(state: State, end: dict[str, Any], reason: str) -> None:
    made = finished(session(state), process(suspended_by="owner"), **end)
    of, its = after(made)
    assert (of.state, of.revoked_at, its.reason, its.failures) == ("ERROR", None, reason, 1)
    assert (its.pid, its.ended_at, its.restart_at, its.suspended_by) == (None, NOW, None, None)
    wanted = {name: value for name, value in {**end, "reason": reason, "restarts": 0}.items() if name != "entered"}
    assert told(made) == [("SESSION_ERROR", wanted)]


@pytest.mark.parametrize("state", ["CREATED", "INITIALIZING"])
def test_a_command_that_ends_well_before_it_was_seen_to_run_has_failed(state: State) -> None:
    assert after(finished(session(state), process(), exit_code=0))[0].state == "ERROR"


@pytest.mark.parametrize(
    ("entered", "expected"), [(True, [(1, "UNKNOWN", None)]), (False, [(1, "QUEUED", "message 1")])]
)
def test_the_turn_of_a_process_that_failed_is_sent_again_only_if_it_never_got_it(entered: bool, expected: Any) -> None:
    made = finished(session("ACTIVE"), process(), turn(1, "RUNNING"), turn(2), signal=9, entered=entered)
    assert shown(made) == expected
    its_end = {"turn": 1, "outcome": "unknown"} if entered else {}
    assert told(made) == [("SESSION_ERROR", {"reason": "crashed", "signal": 9, "restarts": 0, **its_end})]


def test_a_process_that_is_not_to_be_restarted_stays_ended() -> None:
    for never in (config(), config(restart="never"), config(restart=None)):
        assert after(finished(session(), process(config=never), exit_code=1))[1].restart_at is None


def test_failures_double_the_wait_and_after_five_restarts_the_breaker_opens() -> None:
    of, its, waits, now = session("READY"), process(config=RESTARTING, started_at=NOW), [], NOW
    for _ in range(MAX_FAILURES + 1):
        made = finished(of, its, exit_code=3, now=now)
        of, its = after(made)
        assert told(made)[0][1].get("restart_at") == its.restart_at
        if its.restart_at is None:
            break
        waits.append(its.restart_at - now)
        assert not processes.is_wanted(of, its, its.restart_at - 1)
        now = its.restart_at
        of, its = after(processes.begin(rows(of, its), now, external_id="y"))
        of, its = after(processes.started(rows(of, its), now, running=Started(9, 8, "7", "b", its.config, None)))
    assert waits == [1, 2, 4, 8, 16]
    assert (of.state, its.failures, its.restarts, its.restart_at) == ("ERROR", MAX_FAILURES + 1, MAX_FAILURES, None)
    assert max(waits) <= LONGEST_BACKOFF
    assert not processes.is_wanted(of, its, now + 10**6)


@pytest.mark.parametrize(("lasted", "failures"), [(STEADY - 1, 5), (STEADY, 1), (STEADY * 9, 1)])
def test_the_failures_before_a_steady_run_are_forgotten(lasted: int, failures: int) -> None:
    its = process(config=RESTARTING, failures=4, started_at=NOW - lasted)
    assert after(finished(session(), its, exit_code=1))[1].failures == failures


def test_a_start_that_fails_is_no_steady_run_however_long_the_one_before_was() -> None:
    of, its = session("IDLE"), process(config=RESTARTING, started_at=NOW - STEADY * 9)
    seen = []
    for number in range(3):
        of, its = after(finished(of, its, reason="spawn" if number else None, exit_code=None if number else 1))
        seen.append(its.failures)
        assert its.restart_at is not None
        of, its = after(processes.begin(rows(of, its), its.restart_at, external_id="y"))
    assert seen == [1, 2, 3]


@given(st.lists(st.integers(0, 2 * STEADY), min_size=1, max_size=30))
def test_between_two_runs_there_is_always_a_wait_that_is_bounded(lengths: list[int]) -> None:
    of, its, now = session("READY"), process(config=RESTARTING, started_at=NOW), NOW
    for length in lengths:
        now += length
        of, its = after(finished(of, its, exit_code=1, now=now))
        if its.restart_at is None:
            assert its.failures == MAX_FAILURES + 1
            return
        assert 1 <= its.restart_at - now <= LONGEST_BACKOFF
        assert its.failures <= MAX_FAILURES
        now = its.restart_at
        of, its = after(processes.begin(rows(of, its), now, external_id="y"))
        of, its = after(processes.started(rows(of, its), now, running=Started(9, 8, "7", "b", its.config, None)))


@pytest.mark.parametrize("state", [state for state in STATES if state not in {"CLOSING", "CLOSED", "ERROR"}])
def test_what_was_suspended_does_not_come_back_by_itself(state: State) -> None:
    _, its = after(finished(session(state), process(config=RESTARTING), signal=9))
    assert its.restart_at == (None if state == "SUSPENDED" else NOW + 1)


# --- a conversation that is not there


@pytest.mark.parametrize("state", ["READY", "INITIALIZING"])
def test_a_command_that_found_nothing_to_resume_begins_a_conversation_of_its_own(state: State) -> None:
    kept = process(alive=False, resumable=True, config=RESTARTING)
    for unresumed in (False, True):
        of, its = after(finished(session(state), kept, exit_code=1, unresumed=unresumed))
        assert its.resumable is not unresumed
        assert its.restart_at is not None
        _, begun = after(processes.begin(rows(of, its), its.restart_at, external_id="fresh"))
        assert begun.external_id == ("fresh" if unresumed else "x")
