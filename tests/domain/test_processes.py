"""The laws of a supervised session's life: when its process runs, rests, stops and goes on."""

from typing import Any

import msgspec
import pytest

from daemon.domain import processes, session_creation, sessions
from daemon.domain.changes import Outcome, Rows
from daemon.domain.errors import DaemonError
from daemon.domain.pool import Limits
from daemon.domain.process_rows import Process, Supervised
from daemon.domain.processes import Started
from daemon.domain.rows import Agent, Session
from daemon.domain.session_creation import Asked
from daemon.domain.states import STATES, TRANSITIONS, State
from tests.domain.supervised_rows import (
    NOW,
    PLENTY,
    config,
    details,
    kinds,
    place,
    process,
    rows,
    session,
    shown,
    told,
    turn,
    used,
)

ALIVE = ["READY", "ACTIVE", "IDLE"]
SUSPENDED_AGENT = Agent("a", "n", "SUSPENDED")


def refusal(law: Any, *args: Any, **more: Any) -> tuple[str, dict[str, Any]]:
    with pytest.raises(DaemonError) as refused:
        law(*args, **more)
    return refused.value.code, details(refused.value)


# --- what has a process


def test_a_session_without_a_process_is_told_apart_from_no_session() -> None:
    assert refusal(processes.require, Rows()) == ("SESSION_NOT_FOUND", {})
    plain = rows(session("READY", created_by="api"), None)
    assert refusal(processes.require, plain) == (
        "INVALID_STATE_TRANSITION",
        {"from": "READY", "to": None, "allowed": []},
    )
    of, its = session(), process()
    assert processes.require(rows(of, its)) == (of, its)


@pytest.mark.parametrize(
    ("reason", "at_once"),
    [("kill_switch", True), ("killed", True), ("shutdown", True), ("manual_revoke", False), (None, False)],
)
def test_who_is_killed_gets_no_grace(reason: str | None, at_once: bool) -> None:
    assert processes.skips_grace(session("CLOSING", revoked_reason=reason)) is at_once


# --- when it is to run


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("rest", [None, "pool", "idle", "restart"])
def test_a_process_is_wanted_before_its_first_run_and_while_its_session_lives_unless_it_rests(
    state: State, rest: Any
) -> None:
    wanted = state in {"CREATED", "INITIALIZING"} or (state in ALIVE and rest is None)
    assert processes.is_wanted(session(state), process(rest=rest), NOW) is wanted


@pytest.mark.parametrize(("at", "wanted"), [(None, False), (NOW + 1, False), (NOW, True), (NOW - 1, True)])
def test_a_process_that_failed_is_wanted_when_its_time_has_come(at: int | None, wanted: bool) -> None:
    assert processes.is_wanted(session("ERROR"), process(restart_at=at), NOW) is wanted


# --- the start


def begin(of: Session, its: Process, *turns: Any, **more: Any) -> Outcome[Supervised | None]:
    return processes.begin(rows(of, its, *turns, **more), NOW, external_id="fresh")


def test_a_first_start_is_noted_before_it_is_made() -> None:
    made = begin(session("CREATED"), process(alive=False, run=0, started_at=None), turn(1))
    assert made.session is not None
    assert made.process is not None
    assert (made.session.state, made.process.run, made.process.external_id) == ("INITIALIZING", 1, "fresh")
    assert told(made) == [("SESSION_STATE_CHANGED", {"from_state": "CREATED", "to_state": "INITIALIZING"})]
    assert made.answer == Supervised(made.session, Agent("a", "n", "ACTIVE"), made.process, [turn(1)])


def test_a_start_forgets_everything_of_the_run_before() -> None:
    ended = process(
        alive=False, run=3, ended_at=NOW - 5, exit_code=1, signal=9, reason="crashed", run_usage=used(turns=1)
    )
    its = begin(session("IDLE"), ended).process
    assert its == msgspec.structs.replace(
        ended, run=4, external_id="fresh", started_at=None, ended_at=None, exit_code=None, signal=None, reason=None,
        run_usage=None,
    )  # fmt: skip


def test_a_conversation_that_was_kept_is_gone_on_with() -> None:
    its = begin(session("IDLE"), process(alive=False, resumable=True, external_id="known")).process
    assert its is not None
    assert (its.external_id, its.resumable) == ("known", True)


def test_a_start_after_a_failure_is_counted_and_its_time_forgotten() -> None:
    made = begin(session("ERROR"), process(alive=False, restart_at=NOW, restarts=2))
    assert made.session is not None
    assert made.process is not None
    assert (made.session.state, made.process.restarts, made.process.restart_at) == ("INITIALIZING", 3, None)
    again = begin(session("IDLE"), process(alive=False, restarts=2))
    assert again.process is not None
    assert (again.process.restarts, told(again)) == (2, [("SESSION_UPDATED", {"fields": ("process",)})])


@pytest.mark.parametrize(
    ("of", "its", "more"),
    [
        (session("IDLE"), process(), {}),
        (session("IDLE"), process(alive=False, rest="pool"), {}),
        (session("SUSPENDED"), process(alive=False), {}),
        (session("CLOSING"), process(alive=False), {}),
        (session("ERROR"), process(alive=False, restart_at=NOW + 1), {}),
        (session("CREATED"), process(alive=False), {"agent": None}),
    ],
    ids=["it runs", "it rests", "suspended", "closing", "too early", "its agent is gone"],
)
def test_what_is_not_to_run_is_not_started(of: Session, its: Process, more: dict[str, Any]) -> None:
    assert begin(of, its, **more) == Outcome(answer=None)


RUNNING = Started(99, 98, "77", "boot", config(), None)


def started(of: Session, its: Process, *turns: Any, running: Started = RUNNING) -> Outcome[None]:
    return processes.started(rows(of, its, *turns), NOW, running=running)


def test_a_session_that_waited_for_its_process_is_ready() -> None:
    made = started(session("INITIALIZING"), process(alive=False, started_at=None, ended_at=7))
    assert made.session is not None
    assert (made.session.state, kinds(made)) == ("READY", ["SESSION_STATE_CHANGED"])
    its = made.process
    assert its is not None
    assert (its.pid, its.wrapper_pid, its.wrapper_started, its.boot_id) == (99, 98, "77", "boot")
    assert (its.started_at, its.ended_at, its.rest) == (NOW, None, None)


@pytest.mark.parametrize("state", ["INITIALIZING", "READY", "IDLE"])
def test_the_message_that_waited_for_the_process_begins_its_turn(state: State) -> None:
    made = started(session(state), process(alive=False), turn(4), turn(3))
    assert made.session is not None
    assert (made.session.state, shown(made)) == ("ACTIVE", [(3, "RUNNING", "message 3")])


@pytest.mark.parametrize("state", ["ACTIVE", "SUSPENDED", "CLOSING"])
def test_otherwise_a_start_is_no_step_of_the_sessions_life(state: State) -> None:
    made = started(session(state), process(alive=False), turn(3))
    assert (made.session, made.turns) == (session(state), ())
    assert told(made) == [("SESSION_UPDATED", {"fields": ("process",)})]


@pytest.mark.parametrize("changed", [{"config": config(model="m")}, {"secrets": "sealed"}])
def test_a_process_whose_configuration_changed_while_it_was_started_begins_again(changed: dict[str, Any]) -> None:
    made = started(session("INITIALIZING"), process(alive=False, **changed), turn(1))
    assert made.session is not None
    assert made.process is not None
    assert (made.session.state, made.process.rest, made.turns) == ("READY", "restart", ())


def test_how_far_output_was_read_is_no_event() -> None:
    made = processes.read_to(rows(session(), process(output_offset=5)), NOW, offset=9)
    assert made.process == process(output_offset=9)
    assert (made.session, made.facts) == (None, ())


# --- rest


@pytest.mark.parametrize("why", ["pool", "idle", "restart"])
@pytest.mark.parametrize("state", STATES)
def test_only_what_has_nothing_to_do_rests(state: State, why: Any) -> None:
    made = processes.rest(rows(session(state), process()), NOW, why=why)
    may = state in {"READY", "IDLE"} or (state == "SUSPENDED" and why != "idle")
    assert made.answer is may
    if not may:
        assert made == Outcome(answer=False)
        return
    assert made.session is not None
    assert made.process is not None
    assert made.process.rest == why
    suspends = why == "idle"
    assert made.session.state == ("SUSPENDED" if suspends else state)
    assert made.process.suspended_by == ("idle" if suspends else None)
    by_idleness = ("SESSION_SUSPENDED", {"reason": "idle", "by": "idle"})
    assert told(made) == [by_idleness if suspends else ("SESSION_UPDATED", {"fields": ("process",)})]


def test_what_rests_is_not_put_to_rest_again() -> None:
    assert processes.rest(rows(session("IDLE"), process(rest="pool")), NOW, why="idle") == Outcome(answer=False)


# --- suspended, and resumed


@pytest.mark.parametrize("by", ["agent", "output", "idle"])
@pytest.mark.parametrize("state", STATES)
def test_what_lives_can_be_suspended_for_a_limit(state: State, by: Any) -> None:
    made = processes.suspend(rows(session(state), process()), NOW, by=by)
    if state not in ALIVE:
        assert made == Outcome(answer=False)
        return
    assert made.session is not None
    assert made.process is not None
    assert (made.answer, made.session.state, made.process.suspended_by) == (True, "SUSPENDED", by)
    assert told(made) == [("SESSION_SUSPENDED", {"reason": by, "by": by})]


def test_an_activated_agents_session_goes_on_if_its_agent_was_the_reason() -> None:
    made = processes.resume(
        rows(session("SUSPENDED"), process(suspended_by="agent"), turn(2, "RUNNING")), NOW, reason="x"
    )
    assert made.session is not None
    assert made.process is not None
    assert (made.session.state, made.answer, made.process.suspended_by) == ("ACTIVE", made.session, None)
    assert told(made)[0] == ("SESSION_RESUMED", {"reason": "x"})


@pytest.mark.parametrize("by", ["owner", "budget", "idle", "output"])
def test_a_session_that_was_suspended_otherwise_stays_so(by: Any) -> None:
    of = session("SUSPENDED")
    assert processes.resume(rows(of, process(suspended_by=by)), NOW, reason=None) == Outcome(answer=of)
    assert processes.resume(rows(session(), process()), NOW, reason=None) == Outcome(answer=session())


@pytest.mark.parametrize(("tokens", "goes_on"), [(9, True), (10, False)])
def test_an_activated_agents_session_does_not_go_on_if_its_budget_is_used_up(tokens: int, goes_on: bool) -> None:
    of = session("SUSPENDED", usage_stats=used(input_tokens=tokens))
    its = process(suspended_by="agent", config=config(budget={"maxTokens": 10}))
    made = processes.resume(rows(of, its), NOW, reason=None)
    assert made.process is not None
    assert (made.answer.state, made.process.suspended_by) == (("READY", None) if goes_on else ("SUSPENDED", "budget"))
    assert kinds(made) == ["SESSION_RESUMED" if goes_on else "SESSION_UPDATED"]


def resume(
    of: Session, its: Process, *turns: Any, limits: Limits = PLENTY, reason: str | None = "go on", **more: Any
) -> Outcome[Session]:
    return sessions.resume(rows(of, its, *turns, **more), NOW, reason=reason, places=limits)


def test_the_owner_resumes_what_was_suspended() -> None:
    made = resume(session("SUSPENDED"), process(suspended_by="owner"))
    assert made.session is not None
    assert made.process is not None
    assert (made.session.state, made.process.suspended_by, made.room) == ("READY", None, None)
    assert told(made) == [("SESSION_RESUMED", {"reason": "go on"})]


@pytest.mark.parametrize(
    ("rest", "turns", "then"),
    [
        ("idle", [], None),
        ("idle", [turn(1)], None),
        ("pool", [], "pool"),
        ("pool", [turn(1)], None),
        ("pool", [turn(1, "RUNNING")], None),
        ("restart", [], "restart"),
        ("restart", [turn(1)], "restart"),
        (None, [turn(1)], None),
    ],
)
def test_who_is_resumed_has_its_process_back_as_soon_as_there_is_something_to_do(
    rest: Any, turns: list[Any], then: Any
) -> None:
    its = process(alive=rest in {None, "restart"}, rest=rest, suspended_by="owner")
    made = resume(session("SUSPENDED"), its, *turns)
    assert made.session is not None
    assert made.process is not None
    assert made.process.rest == then
    assert made.session.state == ("ACTIVE" if turns and then is None else "READY")


def test_a_process_that_is_called_back_takes_a_place() -> None:
    away, idle = process(alive=False, suspended_by="idle", rest="idle"), place("other")
    made = resume(session("SUSPENDED"), away, limits=Limits(1, 1), pool=[idle])
    assert (made.room, kinds(made)) == (idle, ["SESSION_UPDATED", "SESSION_RESUMED"])
    busy = {"limits": Limits(1, 1), "pool": [place("other", state="ACTIVE")]}
    assert refusal(resume, session("SUSPENDED"), away, **busy)[0] == "PROCESS_LIMIT_EXCEEDED"
    stays = process(alive=False, suspended_by="owner", rest="pool")
    assert resume(session("SUSPENDED"), stays, **busy).room is None  # type: ignore[arg-type]
    assert resume(session("SUSPENDED"), process(suspended_by="owner"), **busy).room is None  # type: ignore[arg-type]


def test_the_owner_lets_what_failed_begin_again_as_if_it_never_had() -> None:
    failed, idle = process(alive=False, failures=6, rest="pool"), place("other")
    made = resume(session("ERROR"), failed, limits=Limits(1, 1), pool=[idle])
    assert made.process == msgspec.structs.replace(failed, restart_at=NOW, failures=0, rest=None)
    assert (made.session, made.answer.state, made.room) == (None, "ERROR", idle)
    assert kinds(made) == ["SESSION_UPDATED", "SESSION_UPDATED"]
    assert [fact.session_id for fact in made.facts] == ["other", "s"]


@pytest.mark.parametrize("state", [state for state in STATES if state not in {"SUSPENDED", "ERROR"}])
def test_what_is_not_suspended_cannot_be_resumed(state: State) -> None:
    full = {"limits": Limits(1, 1), "pool": [place("other", state="ACTIVE")]}
    wanted = {"from": state, "to": "READY", "allowed": list(TRANSITIONS[state])}
    for its in (process(), process(alive=False)):
        assert refusal(resume, session(state), its, **full) == ("INVALID_STATE_TRANSITION", wanted)


def test_nobody_resumes_the_session_of_an_agent_that_is_suspended() -> None:
    for state in ("SUSPENDED", "ERROR"):
        assert refusal(resume, session(state), process(), agent=SUSPENDED_AGENT)[0] == "AGENT_SUSPENDED"


def test_a_session_whose_budget_is_used_up_is_not_resumed_before_it_is_raised() -> None:
    its = process(config=config(budget={"maxTokens": 10}), suspended_by="budget")
    with pytest.raises(DaemonError) as refused:
        resume(session("SUSPENDED", usage_stats=used(input_tokens=10)), its)
    assert refused.value.code == "INVALID_STATE_TRANSITION"
    assert "budget" in refused.value.detail
    assert "PATCH /v1/sessions/{id}" in refused.value.hint
    raised = msgspec.structs.replace(its, config=config(budget={"maxTokens": 11}))
    assert resume(session("SUSPENDED", usage_stats=used(input_tokens=10)), raised).answer.state == "READY"


def test_the_owners_suspension_is_remembered_as_his() -> None:
    made = sessions.suspend(rows(session("ACTIVE"), process()), NOW, reason="odd")
    assert made.process == process(suspended_by="owner")
    assert told(made) == [("SESSION_SUSPENDED", {"reason": "odd", "by": "owner"})]


# --- the end


@pytest.mark.parametrize("state", [state for state in STATES if state not in {"CLOSING", "CLOSED"}])
def test_a_session_that_is_over_a_limit_is_led_to_its_end(state: State) -> None:
    made = processes.close(rows(session(state), process()), NOW, reason="duration")
    assert made.session is not None
    assert (made.answer, made.session.state, made.session.revoked_reason) == (True, "CLOSING", "duration")
    assert told(made) == [("SESSION_REVOKED", {"reason": "duration"})]


@pytest.mark.parametrize("ended", [{"revoked_at": NOW}, {"expired_at": NOW}])
def test_what_has_ended_is_not_ended_again(ended: dict[str, int]) -> None:
    of = session("CLOSING", **ended)
    assert processes.close(rows(of, process()), NOW, reason="duration") == Outcome(answer=False)


def kill(of: Session) -> Outcome[Session]:
    return sessions.kill(rows(of, process()), NOW, reason="why")


@pytest.mark.parametrize("state", [state for state in STATES if state not in {"CLOSING", "CLOSED"}])
def test_the_owner_kills_what_lives(state: State) -> None:
    made = kill(session(state))
    assert made.session is not None
    assert (made.session.state, made.session.revoked_at, made.session.revoked_reason) == ("CLOSING", NOW, "killed")
    assert told(made) == [("SESSION_KILLED", {"reason": "why"})]


def test_the_owner_kills_what_takes_too_long_to_end() -> None:
    made = kill(session("CLOSING", revoked_at=NOW - 9, revoked_reason="manual_revoke"))
    assert made.session is not None
    assert (made.session.revoked_at, made.session.revoked_reason) == (NOW - 9, "killed")
    assert kinds(made) == ["SESSION_KILLED"]
    expired = kill(session("CLOSING", expired_at=NOW - 9))
    assert expired.session is not None
    assert (expired.session.state, processes.skips_grace(expired.session)) == ("CLOSING", True)


def test_what_is_closed_cannot_be_killed() -> None:
    wanted = {"from": "CLOSED", "to": "CLOSING", "allowed": []}
    assert refusal(kill, session("CLOSED", revoked_at=NOW)) == ("INVALID_STATE_TRANSITION", wanted)


# --- messages, as the door lets them in


def message(of: Session, *, by_agent: bool, **more: Any) -> Outcome[Any]:
    its = rows(of, process(), **more)
    return sessions.message(its, NOW, content="x", queue=False, places=PLENTY, by_agent=by_agent)


def test_a_message_needs_an_active_agent_whoever_sends_it() -> None:
    for by_agent in (False, True):
        code, _ = refusal(message, session(), by_agent=by_agent, agent=SUSPENDED_AGENT)
        assert code == "AGENT_SUSPENDED"
        assert message(session(), by_agent=by_agent).answer.turn == 1


def test_an_agents_message_is_checked_again_on_the_stored_row() -> None:
    assert refusal(message, session(expires_at=NOW), by_agent=True)[0] == "TOKEN_EXPIRED"
    assert refusal(message, session("CLOSING", revoked_at=NOW), by_agent=True)[0] == "SESSION_REVOKED"


@pytest.mark.parametrize(
    ("of", "status"),
    [
        (session(expires_at=NOW), "EXPIRED"),
        (session("CLOSING", expired_at=NOW), "EXPIRED"),
        (session("CLOSING", revoked_at=NOW), "REVOKED"),
    ],
)
def test_a_session_whose_time_is_over_takes_no_message_of_its_owner_either(of: Session, status: str) -> None:
    code, told_of = refusal(message, of, by_agent=False)
    assert (code, told_of["from"], told_of["status"]) == ("INVALID_STATE_TRANSITION", of.state, status)


# --- a session is made


def create(its: Process | None, limits: Limits = PLENTY, **more: Any) -> Outcome[Any]:
    fresh = session("CREATED", created_by="process" if its else "api", token_hash="")
    asked = Asked(
        session=fresh, process=its, ttl=600, absolute_lifetime=86_400, limit=5, places=limits, key="k",
        mint=lambda made: (f"token until {made.expires_at}", "hash"),
    )  # fmt: skip
    known = Rows(**{"agent": Agent("a", "n", "ACTIVE"), **more})
    return session_creation.create(known, NOW, asked=asked)


def test_a_session_with_a_process_waits_for_it_and_one_without_is_ready() -> None:
    for its, state in ((process(alive=False), "CREATED"), (None, "READY")):
        made = create(its)
        assert made.new_session is not None
        assert (made.new_session.state, made.new_session.token_hash, made.new_process) == (state, "hash", its)
        assert (made.answer.state, made.answer.token, made.idempotency_key) == (state, f"token until {NOW + 600}", "k")
        assert kinds(made) == ["SESSION_CREATED"]


def test_a_new_process_takes_a_place_and_may_be_made_room_for() -> None:
    idle = place("other")
    made = create(process(alive=False), Limits(1, 1), pool=[idle])
    assert (made.room, kinds(made)) == (idle, ["SESSION_CREATED", "SESSION_UPDATED"])
    busy = [place("other", state="ACTIVE")]
    assert refusal(create, process(alive=False), Limits(1, 1), pool=busy)[0] == "PROCESS_LIMIT_EXCEEDED"
    assert create(None, Limits(1, 1), pool=busy).room is None


@pytest.mark.parametrize(
    ("known", "code"),
    [
        ({"agent": None}, "AGENT_NOT_FOUND"),
        ({"agent": Agent("a", "n", "TERMINATING")}, "AGENT_TERMINATED"),
        ({"agent": Agent("a", "n", "TERMINATED")}, "AGENT_TERMINATED"),
        ({"agent": SUSPENDED_AGENT}, "AGENT_SUSPENDED"),
        ({"idempotent_session": "before"}, "IDEMPOTENCY_CONFLICT"),
        ({"active_sessions": 5}, "SESSION_LIMIT_EXCEEDED"),
    ],
)
def test_what_refuses_a_session_refuses_one_with_a_process_before_anybody_makes_room(
    known: dict[str, Any], code: str
) -> None:
    for its in (process(alive=False), None):
        assert refusal(create, its, Limits(1, 1), pool=[place("other", state="ACTIVE")], **known)[0] == code
