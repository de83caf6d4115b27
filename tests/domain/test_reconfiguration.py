"""The laws of a new configuration: obeyed at once or by a new run, and never in the middle of a turn unasked."""

from typing import Any

import msgspec
import pytest

from daemon.domain import process_config, sessions
from daemon.domain.changes import Outcome
from daemon.domain.errors import DaemonError
from daemon.domain.process_config import Budget, PatchProcess, ProcessConfig
from daemon.domain.process_rows import Process, Turn
from daemon.domain.reconfiguration import Reconfigure
from daemon.domain.requests import PatchSession
from daemon.domain.rows import Session
from daemon.domain.states import STATES, State
from tests.domain.supervised_rows import NOW, config, details, process, rows, session, shown, told, turn

NEW = config(model="another")


def reconfigure(
    of: Session, its: Process, *turns: Turn, new: str = NEW, restarts: bool = True, force: bool = False, **more: Any
) -> Outcome[Session] | None:
    law = Reconfigure(before=its, config=new, secrets=its.secrets, restarts=restarts, force=force)
    return law(rows(of, msgspec.structs.replace(its, **more), *turns), NOW)


def changed(made: Outcome[Session] | None) -> tuple[Outcome[Session], Process]:
    assert made is not None
    assert made.process is not None
    return made, made.process


def busy(*args: Any, **more: Any) -> DaemonError:
    with pytest.raises(DaemonError) as refused:
        reconfigure(*args, **more)
    assert (refused.value.code, refused.value.retry_after) == ("SESSION_BUSY", 1)
    return refused.value


@pytest.mark.parametrize("state", ["READY", "IDLE", "SUSPENDED"])
def test_a_process_that_must_begin_again_for_it_does(state: State) -> None:
    made, its = changed(reconfigure(session(state), process(warned_at=7)))
    assert (its.config, its.rest, its.warned_at) == (NEW, "restart", None)
    assert (made.answer, made.facts, made.turns) == (session(state), (), ())


@pytest.mark.parametrize("state", ["READY", "ACTIVE", "IDLE", "SUSPENDED"])
def test_what_the_daemon_minds_itself_disturbs_no_turn(state: State) -> None:
    made, its = changed(reconfigure(session(state), process(), turn(1, "RUNNING"), restarts=False))
    assert (its.config, its.rest, made.session, made.turns) == (NEW, None, None, ())


@pytest.mark.parametrize("state", [state for state in STATES if state not in {"READY", "ACTIVE", "IDLE", "SUSPENDED"}])
def test_what_has_not_begun_or_has_failed_begins_with_it(state: State) -> None:
    for its in (process(alive=False), process()):
        _, after = changed(reconfigure(session(state), its))
        assert (after.config, after.rest) == (NEW, None)


@pytest.mark.parametrize("rest", ["pool", "idle", None])
def test_a_process_that_is_not_there_begins_with_it_when_it_is_called_back(rest: Any) -> None:
    _, its = changed(reconfigure(session("IDLE"), process(alive=False, rest=rest)))
    assert (its.config, its.rest) == (NEW, rest)


def test_a_process_that_is_just_ending_to_make_room_does_not_begin_again_for_it() -> None:
    assert changed(reconfigure(session("IDLE"), process(rest="pool")))[1].rest == "pool"


@pytest.mark.parametrize("state", ["ACTIVE", "SUSPENDED"])
def test_a_turn_that_runs_is_not_interrupted_unasked(state: State) -> None:
    assert details(busy(session(state), process(), turn(1, "RUNNING"))) == {"state": state}


def test_asked_to_it_interrupts_the_turn_and_the_messages_that_wait_begin_with_the_new_run() -> None:
    made, its = changed(reconfigure(session("ACTIVE"), process(), turn(1, "RUNNING"), turn(2), force=True))
    assert made.session is not None
    assert (made.session.state, its.rest, shown(made)) == ("IDLE", "restart", [(1, "INTERRUPTED", None)])
    change = {"from_state": "ACTIVE", "to_state": "IDLE", "turn": 1, "outcome": "interrupted"}
    assert told(made) == [("SESSION_STATE_CHANGED", change)]
    stopped, _ = changed(reconfigure(session("SUSPENDED"), process(), turn(1, "RUNNING"), force=True))
    assert stopped.session is not None
    assert (stopped.session.state, shown(stopped), stopped.facts) == ("SUSPENDED", [(1, "INTERRUPTED", None)], ())


def test_of_two_changes_at_the_same_time_one_is_refused() -> None:
    for raced in ({"config": config(model="third")}, {"secrets": "other"}):
        busy(session(), process(), **raced)


def test_the_same_configuration_changes_nothing() -> None:
    assert reconfigure(session("ACTIVE"), process(), turn(1, "RUNNING"), new=process().config) is None


def test_new_secrets_alone_are_a_new_configuration() -> None:
    its = process(secrets="old")
    law = Reconfigure(before=its, config=its.config, secrets="new", restarts=True, force=False)
    _, after = changed(law(rows(session("IDLE"), its), NOW))
    assert (after.secrets, after.rest) == ("new", "restart")


def test_only_a_session_with_a_process_has_a_configuration() -> None:
    law = Reconfigure(before=process(), config=NEW, secrets=None, restarts=True, force=False)
    with pytest.raises(DaemonError) as refused:
        law(rows(session("READY", created_by="api"), None), NOW)
    assert refused.value.code == "INVALID_STATE_TRANSITION"


# --- as a part of a change of the session


def patch(of: Session, its: Process, *turns: Turn, law: Reconfigure | None, **fields: Any) -> Outcome[Session]:
    return sessions.patch(rows(of, its, *turns), NOW, body=PatchSession(**fields), reconfigure=law)


def law_for(its: Process, **more: Any) -> Reconfigure:
    return Reconfigure(**{"before": its, "config": NEW, "secrets": None, "restarts": True, "force": True, **more})


def test_a_change_of_session_and_process_is_one_and_has_one_event_of_its_own() -> None:
    its = process()
    made = patch(session("ACTIVE"), its, turn(1, "RUNNING"), law=law_for(its), user_id="u")
    assert made.session is not None
    assert (made.session.user_id, made.session.state, made.answer) == ("u", "IDLE", made.session)
    assert [kind for kind, _ in told(made)] == ["SESSION_UPDATED", "SESSION_STATE_CHANGED"]
    assert told(made)[0][1] == {"fields": ("process", "user_id")}
    assert shown(made) == [(1, "INTERRUPTED", None)]


def test_a_change_of_the_process_alone_is_told_as_that() -> None:
    its = process()
    made = patch(session("IDLE"), its, law=law_for(its))
    assert told(made) == [("SESSION_UPDATED", {"fields": ("process",)})]
    assert made.process is not None
    assert made.process.rest == "restart"


def test_a_change_that_changes_nothing_is_none() -> None:
    its = process()
    made = patch(session("IDLE"), its, law=law_for(its, config=its.config))
    assert (made.session, made.process, made.facts) == (None, None, ())
    fields = patch(session("IDLE"), its, law=law_for(its, config=its.config), user_id="u")
    assert (fields.process, told(fields)) == (None, [("SESSION_UPDATED", {"fields": ("user_id",)})])


# --- what a process must begin again for

BEFORE = ProcessConfig(command="claude", working_dir="/w", budget=Budget(max_cost_usd=1.0, max_tokens=10))
CHANGES: list[tuple[dict[str, Any], bool]] = [
    ({"command": ["cat"]}, True),
    ({"working_dir": "/other"}, True),
    ({"system_prompt": "x"}, True),
    ({"max_turns": 3}, True),
    ({"temperature": 0.5}, True),
    ({"allowed_tools": ["Read"]}, True),
    ({"environment": {"A": "1"}}, True),
    ({"oauth_token": "t"}, True),
    ({"model": "m"}, True),
    ({"budget": Budget(max_cost_usd=2.0, max_tokens=10)}, True),
    ({"budget": None}, True),
    ({"budget": Budget(max_cost_usd=1.0, max_tokens=20)}, False),
    ({"tool_timeout": 5}, False),
    ({"max_memory": 1 << 30}, False),
    ({"max_cpu": 1.0}, False),
    ({"max_duration": 60}, False),
    ({"idle_timeout": 60}, False),
    ({"quiet_after": 100}, False),
    ({"restart": "on-failure"}, False),
]


@pytest.mark.parametrize(("change", "restarts"), CHANGES)
def test_a_process_begins_again_for_what_its_command_was_told(change: dict[str, Any], restarts: bool) -> None:
    after = PatchProcess(**change).applied_to(BEFORE)
    assert after == msgspec.structs.replace(BEFORE, **change)
    assert process_config.must_restart(BEFORE, after) is restarts
    assert process_config.must_restart(after, BEFORE) is restarts


def test_every_field_of_a_configuration_is_decided_about() -> None:
    assert {name for change, _ in CHANGES for name in change} == set(ProcessConfig.__struct_fields__)
    assert not process_config.must_restart(BEFORE, PatchProcess().applied_to(BEFORE))
