"""The laws of turns: one at a time, in order, none twice, and none beyond the budget."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.domain import process_ends, processes, turns, usage
from daemon.domain.changes import Outcome
from daemon.domain.errors import DaemonError
from daemon.domain.pool import Limits
from daemon.domain.process_ends import End
from daemon.domain.process_rows import Process, Turn
from daemon.domain.process_views import SentMessage
from daemon.domain.processes import Started
from daemon.domain.reconfiguration import Reconfigure
from daemon.domain.rows import Session
from daemon.domain.states import STATES, State
from daemon.domain.turns import MAX_QUEUED, TurnEnd
from daemon.domain.usage import Usage
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


def send(
    of: Session, its: Process, *waiting: Turn, queue: bool = False, limits: Limits = PLENTY, **more: Any
) -> Outcome[SentMessage]:
    return turns.send(rows(of, its, *waiting, **more), of, its, NOW, content="hello", queue=queue, limits=limits)


def over(of: Session, its: Process, *known: Turn, **end: Any) -> Outcome[None]:
    ended = TurnEnd(**{"outcome": "DONE", "output_offset": 500, **end})
    return turns.over(rows(of, its, *known), of, its, NOW, end=ended)


def refusal(of: Session, its: Process, *waiting: Turn, queue: bool = False, **more: Any) -> tuple[str, dict[str, Any]]:
    with pytest.raises(DaemonError) as refused:
        send(of, its, *waiting, queue=queue, **more)
    return refused.value.code, details(refused.value)


def after(outcome: Outcome[Any]) -> tuple[Session, Process]:
    assert outcome.session is not None
    assert outcome.process is not None
    return outcome.session, outcome.process


# --- messages


def test_the_first_message_starts_the_session_and_its_event_has_no_details() -> None:
    fresh = session("READY", started_at=None)
    made = send(fresh, process(last_turn=0))
    changed, its = after(made)
    assert made.answer == SentMessage(1)
    assert (changed.state, changed.started_at, changed.state_changed_at, its.last_turn) == ("ACTIVE", NOW, NOW, 1)
    assert made.turns == (Turn("s", 1, "RUNNING", "hello", NOW, NOW),)
    assert told(made) == [("SESSION_STARTED", {})]


@pytest.mark.parametrize("state", ["READY", "IDLE"])
def test_a_message_to_a_session_that_waits_for_one_begins_a_turn(state: State) -> None:
    made = send(session(state), process(last_turn=7))
    changed, its = after(made)
    assert (made.answer, changed.state, its.last_turn, made.room) == (SentMessage(8), "ACTIVE", 8, None)
    assert shown(made) == [(8, "RUNNING", "hello")]
    assert told(made) == [("SESSION_STATE_CHANGED", {"from_state": state, "to_state": "ACTIVE", "turn": 8})]


@pytest.mark.parametrize("state", ["CREATED", "INITIALIZING", "ACTIVE", "SUSPENDED"])
def test_a_message_for_later_waits_only_if_it_may(state: State) -> None:
    busy, its = session(state), process(last_turn=2, suspended_by="owner" if state == "SUSPENDED" else None)
    assert refusal(busy, its, turn(2)) == ("SESSION_BUSY", {"state": state, "queued": 1})
    made = send(busy, its, turn(2), queue=True)
    changed, told_of = after(made)
    assert (changed, told_of.last_turn, made.answer) == (busy, 3, SentMessage(3))
    assert made.turns == (Turn("s", 3, "QUEUED", "hello", NOW),)
    assert told(made) == [("SESSION_UPDATED", {"fields": ("turns",)})]


@pytest.mark.parametrize("state", [state for state in STATES if state in {"CLOSING", "CLOSED", "ERROR"}])
@pytest.mark.parametrize("queue", [False, True])
def test_a_session_that_is_ending_or_has_failed_takes_no_message(state: State, queue: bool) -> None:
    wanted = {"from": state, "to": "ACTIVE", "allowed": []}
    assert refusal(session(state), process(), queue=queue) == ("INVALID_STATE_TRANSITION", wanted)


def test_so_many_messages_wait_and_no_more() -> None:
    busy, running = session("ACTIVE"), turn(1, "RUNNING")
    waiting = [turn(number) for number in range(2, MAX_QUEUED + 2)]
    assert send(busy, process(), running, *waiting[:-1], queue=True).turns
    code, told_of = refusal(busy, process(), running, *waiting, queue=True)
    assert (code, told_of["queued"]) == ("SESSION_BUSY", MAX_QUEUED)


def test_a_session_that_was_suspended_for_idleness_goes_on_with_a_message() -> None:
    sleeping = process(alive=False, suspended_by="idle", rest="idle")
    made = send(session("SUSPENDED"), sleeping)
    changed, its = after(made)
    assert (changed.state, its.suspended_by, its.rest) == ("ACTIVE", None, None)
    assert told(made) == [
        ("SESSION_RESUMED", {"reason": "message"}),
        ("SESSION_STATE_CHANGED", {"from_state": "READY", "to_state": "ACTIVE", "turn": 1}),
    ]


@pytest.mark.parametrize("by", ["owner", "agent", "budget", "output"])
def test_a_session_that_was_suspended_for_anything_else_does_not(by: Any) -> None:
    its = process(suspended_by=by)
    assert refusal(session("SUSPENDED"), its)[0] == "SESSION_BUSY"
    assert after(send(session("SUSPENDED"), its, queue=True))[0].state == "SUSPENDED"


@pytest.mark.parametrize("rest", ["pool", "idle", None])
def test_a_process_that_is_not_there_is_called_back_if_there_is_room_for_it(rest: Any) -> None:
    away, one = process(alive=False, rest=rest), Limits(1, 1)
    idle, busy = place("other", since=NOW - 9), place("other", state="ACTIVE")
    made = send(session(), away, limits=one, pool=[idle])
    assert (after(made)[1].rest, made.room) == (None, idle)
    assert [fact.session_id for fact in made.facts] == ["other", "s"]
    assert refusal(session(), away, limits=one, pool=[busy])[0] == "PROCESS_LIMIT_EXCEEDED"
    assert send(session(), away, limits=one, pool=[place("s")]).room is None


def test_a_process_that_is_still_ending_to_make_room_needs_a_place_too() -> None:
    leaving = process(rest="pool")
    made = send(session(), leaving, limits=Limits(1, 1), pool=[place("other")])
    assert (after(made)[1].rest, made.room) == (None, place("other"))


def test_a_process_that_runs_has_its_place() -> None:
    assert send(session(), process(), limits=Limits(1, 1), pool=[place("s"), place("other")]).room is None


# --- the restart in between: what the old run says last must not be taken for a new turn's


@pytest.mark.parametrize("state", ["READY", "IDLE"])
def test_a_message_waits_for_a_process_that_is_to_begin_again(state: State) -> None:
    made = send(session(state), process(rest="restart", last_turn=3))
    changed, its = after(made)
    assert (changed.state, its.rest, its.last_turn, shown(made)) == (state, "restart", 4, [(4, "QUEUED", "hello")])
    full = [turn(number) for number in range(1, MAX_QUEUED + 1)]
    assert refusal(session(state), process(rest="restart"), *full)[0] == "SESSION_BUSY"


def test_a_message_ends_idleness_even_where_it_has_to_wait() -> None:
    made = send(session("SUSPENDED"), process(suspended_by="idle", rest="restart"))
    changed, its = after(made)
    assert (changed.state, its.suspended_by, its.rest, shown(made)) == (
        "READY", None, "restart", [(1, "QUEUED", "hello")],
    )  # fmt: skip
    assert kinds(made) == ["SESSION_RESUMED", "SESSION_UPDATED"]


def test_the_end_of_a_turn_begins_no_other_before_the_process_has_begun_again() -> None:
    made = over(session("IDLE"), process(rest="restart"), turn(2), outcome="INTERRUPTED")
    assert (after(made)[0].state, made.turns) == ("IDLE", ())


# --- the next turn


def test_the_message_that_has_waited_longest_is_next() -> None:
    begun = turns.next_turn(session("IDLE"), [turn(4), turn(3, "RUNNING"), turn(9), turn(5)], NOW)
    assert (begun.session.state, begun.turns) == ("ACTIVE", (turn(4, "RUNNING", started_at=NOW),))
    assert turns.next_turn(session("IDLE"), [turn(3, "RUNNING")], NOW) == turns.Begun(session("IDLE"))


def test_who_is_resumed_goes_on_with_the_turn_in_which_it_was_suspended() -> None:
    ready, known = session("READY"), [turn(3, "RUNNING"), turn(4)]
    for restarts in (False, True):
        begun = turns.go_on(ready, known, NOW, restarts=restarts)
        assert (begun.session.state, begun.turns, begun.facts[0].turn) == ("ACTIVE", (), 3)  # type: ignore[attr-defined]
    begun = turns.go_on(ready, known[1:], NOW, restarts=False)
    assert (begun.session.state, [one.turn for one in begun.turns]) == ("ACTIVE", [4])
    assert turns.go_on(ready, known[1:], NOW, restarts=True) == turns.Begun(ready)
    assert turns.go_on(ready, [], NOW, restarts=False) == turns.Begun(ready)


# --- the end of a turn


@pytest.mark.parametrize("outcome", ["DONE", "FAILED", "INTERRUPTED", "UNKNOWN"])
def test_a_turn_that_is_over_is_counted_its_content_forgotten_and_the_session_idle(outcome: Any) -> None:
    made = over(session("ACTIVE"), process(turns=2), turn(3, "RUNNING"), outcome=outcome)
    changed, its = after(made)
    assert (changed.state, usage.read(changed.usage_stats).turns, its.turns) == ("IDLE", 1, 1)
    assert made.turns == (turn(3, outcome, content=None, started_at=NOW - 10, ended_at=NOW),)
    change = {"from_state": "ACTIVE", "to_state": "IDLE", "turn": 3, "outcome": outcome.lower()}
    assert told(made) == [("SESSION_STATE_CHANGED", change)]


def test_the_next_turn_begins_with_the_end_of_the_one_before() -> None:
    made = over(session("ACTIVE"), process(), turn(3, "RUNNING"), turn(5), turn(4))
    assert after(made)[0].state == "ACTIVE"
    assert shown(made) == [(3, "DONE", None), (4, "RUNNING", "message 4")]
    assert [(fact["to_state"], fact["turn"]) for _, fact in told(made)] == [("IDLE", 3), ("ACTIVE", 4)]


def test_what_a_command_does_of_its_own_accord_ends_no_turn_but_is_counted() -> None:
    made = over(session("ACTIVE"), process(), turn(3, "RUNNING"), outcome=None, run_usage=Usage(output_tokens=9))
    changed, _ = after(made)
    assert (changed.state, made.turns, made.facts) == ("ACTIVE", (), ())
    assert usage.read(changed.usage_stats) == Usage(output_tokens=9)


def test_the_end_of_another_turn_than_the_one_that_runs_ends_nothing() -> None:
    made = over(session("ACTIVE"), process(), turn(4, "RUNNING"), turn=3)
    assert (after(made)[0].state, made.turns, made.facts) == ("ACTIVE", (), ())
    assert shown(over(session("ACTIVE"), process(), turn(4, "RUNNING"), turn=4)) == [(4, "DONE", None)]


def test_the_end_of_a_turn_where_none_runs_is_no_turn() -> None:
    made = over(session("IDLE"), process(turns=5), run_usage=Usage(input_tokens=3))
    changed, _ = after(made)
    assert (changed.state, made.turns, usage.read(changed.usage_stats)) == ("IDLE", (), Usage(input_tokens=3))


@pytest.mark.parametrize("state", ["SUSPENDED", "CLOSING"])
def test_a_turn_may_end_while_its_session_is_stopped_and_nothing_begins(state: State) -> None:
    made = over(session(state), process(), turn(3, "RUNNING"), turn(4))
    assert (after(made)[0].state, shown(made)) == (state, [(3, "DONE", None)])
    assert told(made) == [("SESSION_UPDATED", {"fields": ("turns",), "turn": 3, "outcome": "done"})]


def test_of_what_a_run_reports_only_what_is_new_is_added() -> None:
    before = Usage(input_tokens=100, cost_usd=0.25)
    of = session("ACTIVE", usage_stats=used(turns=4, input_tokens=1_000, cost_usd=1.5))
    its = process(run_usage=msgspec.json.encode(before).decode())
    made = over(of, its, turn(5, "RUNNING"), run_usage=Usage(input_tokens=130, cost_usd=0.35))
    changed, then = after(made)
    assert usage.read(changed.usage_stats) == Usage(turns=5, input_tokens=1_030, cost_usd=1.6)
    assert usage.read(then.run_usage) == Usage(input_tokens=130, cost_usd=0.35)
    assert then.turns == 5


def test_a_turn_of_which_nothing_is_said_leaves_what_the_run_has_said() -> None:
    of, its = session("ACTIVE", usage_stats=used(output_tokens=7)), process(run_usage=used(output_tokens=7))
    changed, then = after(over(of, its, turn(1, "RUNNING")))
    assert usage.read(changed.usage_stats) == Usage(turns=1, output_tokens=7)
    assert then.run_usage == its.run_usage


def test_output_that_was_read_is_never_unread_and_a_conversation_that_was_kept_stays() -> None:
    _, its = after(over(session("ACTIVE"), process(output_offset=900, resumable=True), turn(1, "RUNNING")))
    assert (its.output_offset, its.resumable) == (900, True)
    _, its = after(over(session("ACTIVE"), process(output_offset=9), turn(1, "RUNNING"), resumable=True))
    assert (its.output_offset, its.resumable) == (500, True)
    _, its = after(over(session("ACTIVE"), process(), turn(1, "RUNNING")))
    assert not its.resumable


# --- budgets

BUDGET = config(budget={"maxTokens": 100})


def spend(of: Session, its: Process, tokens: int, *waiting: Turn) -> Outcome[None]:
    before = usage.read(its.run_usage).output_tokens
    return over(of, its, turn(1, "RUNNING"), *waiting, run_usage=Usage(output_tokens=before + tokens))


def test_at_most_of_a_budget_the_owner_is_warned_once_and_at_all_of_it_the_session_stops() -> None:
    of, its, seen = session("ACTIVE"), process(config=BUDGET), []
    for tokens in (79, 1, 19, 1):
        made = spend(of, its, tokens)
        of, its = after(made)
        seen.append((of.state, [kind for kind in kinds(made) if kind != "SESSION_STATE_CHANGED"], its.warned_at))
        of = msgspec.structs.replace(of, state="ACTIVE")
    assert seen == [
        ("IDLE", [], None),
        ("IDLE", ["BUDGET_WARNING"], NOW),
        ("IDLE", [], NOW),
        ("SUSPENDED", ["SESSION_SUSPENDED"], NOW),
    ]
    assert its.suspended_by == "budget"


def test_a_budget_that_is_used_at_one_stroke_warns_and_suspends() -> None:
    made = spend(session("ACTIVE"), process(config=BUDGET), 250, turn(2))
    assert told(made)[1:] == [
        ("BUDGET_WARNING", {"budget": "maxTokens", "used": 250, "limit": 100}),
        ("SESSION_SUSPENDED", {"reason": "budget", "by": "budget"}),
    ]
    assert shown(made) == [(1, "DONE", None)], "the message that waits must not begin"


def test_a_budget_of_money_is_held_likewise() -> None:
    its = process(config=config(budget={"maxCostUsd": 0.5}))
    made = over(session("ACTIVE"), its, turn(1, "RUNNING"), run_usage=Usage(cost_usd=0.41))
    assert told(made)[1] == ("BUDGET_WARNING", {"budget": "maxCostUsd", "used": 0.41, "limit": 0.5})
    assert after(made)[0].state == "IDLE"


def test_a_turn_that_runs_is_not_cut_off_by_the_budget() -> None:
    made = over(
        session("ACTIVE"),
        process(config=BUDGET),
        turn(1, "RUNNING"),
        outcome=None,
        run_usage=Usage(output_tokens=200),
    )
    assert (after(made)[0].state, kinds(made)) == ("ACTIVE", ["BUDGET_WARNING"])


@pytest.mark.parametrize(("tokens", "spent"), [(0, False), (99, False), (100, True), (101, True)])
def test_a_session_that_has_used_all_of_its_budget_does_not_go_on(tokens: int, spent: bool) -> None:
    of = session(usage_stats=used(input_tokens=tokens))
    turns.require_budget(of, process(config=config()))
    with pytest.raises(DaemonError) if spent else contextlib.nullcontext() as refused:
        turns.require_budget(of, process(config=BUDGET))
    assert not spent or refused.value.code == "INVALID_STATE_TRANSITION"


# --- turns that will never be done


KNOWN = [turn(1, "RUNNING"), turn(2), turn(3)]


def test_a_turn_whose_message_has_entered_is_not_sent_a_second_time() -> None:
    assert turns.lost(KNOWN, NOW, entered=True) == (
        turn(1, "UNKNOWN", content=None, started_at=NOW - 10, ended_at=NOW),
    )


def test_a_turn_whose_message_never_entered_waits_again() -> None:
    assert turns.lost(KNOWN, NOW, entered=False) == (turn(1),)


def test_a_turn_that_is_interrupted_is_over_and_the_others_wait_on() -> None:
    assert turns.interrupted(KNOWN, NOW) == (turn(1, "INTERRUPTED", content=None, started_at=NOW - 10, ended_at=NOW),)


@pytest.mark.parametrize(("unknown", "first"), [(True, "UNKNOWN"), (False, "INTERRUPTED")])
def test_the_turns_of_a_closed_session_are_all_over(unknown: bool, first: str) -> None:
    ended = turns.abandoned(KNOWN, NOW, unknown=unknown)
    assert [(one.turn, one.state) for one in ended] == [(1, first), (2, "INTERRUPTED"), (3, "INTERRUPTED")]
    assert all(one.content is None and one.ended_at == NOW for one in ended)


# --- whatever comes


class Life:
    """A session, its process and its turns, changed by the laws alone."""

    def __init__(self) -> None:
        self.of, self.its = session("READY", started_at=None), process()
        self.known: dict[int, Turn] = {}
        self.begun: list[int] = []
        self.configs = 0

    @property
    def waiting(self) -> list[Turn]:
        return [one for one in self.known.values() if one.state in {"QUEUED", "RUNNING"}]

    def apply(self, made: Outcome[Any] | None) -> None:
        if made is None:
            return
        self.of, self.its = made.session or self.of, made.process or self.its
        self.begun += [one.turn for one in made.turns if one.state == "RUNNING"]
        self.known |= {one.turn: one for one in made.turns}

    def send(self) -> None:
        if sum(one.state == "QUEUED" for one in self.waiting) < MAX_QUEUED:
            self.apply(send(self.of, self.its, *self.waiting, queue=True))

    def over(self) -> None:
        if self.its.pid is not None:
            self.apply(over(self.of, self.its, *self.waiting))

    def something_else(self) -> None:
        if self.its.pid is not None:
            self.apply(over(self.of, self.its, *self.waiting, outcome=None))

    def reconfigure(self) -> None:
        self.configs += 1
        fresh = config(model=str(self.configs))
        change = Reconfigure(before=self.its, config=fresh, secrets=None, restarts=True, force=True)
        self.apply(change(rows(self.of, self.its, *self.waiting), NOW))

    def end(self) -> None:
        """The process ends because it is to begin again; the message of a turn that runs then has entered."""
        if self.its.pid is not None and self.its.rest == "restart":
            self.apply(process_ends.finished(rows(self.of, self.its, *self.waiting), NOW, end=End(0, entered=True)))

    def begin(self) -> None:
        if self.its.pid is not None:
            return
        self.apply(processes.begin(rows(self.of, self.its, *self.waiting), NOW, external_id="y"))
        running = Started(43, 42, "8", "b", self.its.config, None)
        self.apply(processes.started(rows(self.of, self.its, *self.waiting), NOW, running=running))


STEPS = [Life.send, Life.over, Life.something_else, Life.reconfigure, Life.end, Life.begin]


@given(st.lists(st.sampled_from(STEPS), max_size=60))
def test_turns_run_one_at_a_time_in_the_order_of_their_messages_and_none_is_forgotten(steps: list[Any]) -> None:
    life = Life()
    for step in steps:
        step(life)
        running = [one for one in life.waiting if one.state == "RUNNING"]
        assert len(running) <= 1
        assert (life.of.state == "ACTIVE") == bool(running)
        assert not (running and life.its.rest == "restart"), "what the old run says would be taken for this turn's"
        if life.of.state in {"READY", "IDLE"} and life.its.pid is not None and life.its.rest is None:
            assert life.waiting == [], "a message waits, and nothing will ever begin its turn"
    assert life.begun == list(range(1, len(life.begun) + 1)), "a turn was begun twice, or before one that is older"
    assert not any(one.state == "UNKNOWN" for one in life.known.values())
