"""A process gets a new configuration: it begins again between turns, or not at all where it need not."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from daemon.domain.process_config import PatchProcess, ProcessConfig
from tests.support.daemon_process import wait_for
from tests.support.supervised import BEGIN, CAT, Desk, ScriptedClaude, Supervised, code, environment_of, kill9

QUICK: dict[str, Any] = {"quietAfter": 50}


def new_run(session: Supervised, before: int) -> int:
    """Return the pid of the run that follows another."""

    def there() -> int | None:
        pid = session.process["pid"]
        return pid if pid not in {None, before} else None

    return int(wait_for(there))


def runs(session: ScriptedClaude, count: int) -> list[list[str]]:
    wait_for(lambda: len(session.notes("run")) == count)
    return session.notes("run")


def busy(desk: Desk, **process: Any) -> ScriptedClaude:
    session = desk.claude(**process).script(hold="go")
    session.send("one")
    wait_for(lambda: session.notes("got"))
    return session


def test_between_turns_a_process_begins_again_with_its_new_configuration(desk: Desk) -> None:
    session = desk.claude(model="small")
    session.turn("one")
    answer = session.patch(process={"model": "large", "systemPrompt": "Be brief.", "maxTurns": 7})
    assert answer.status_code == 200
    first, second = runs(session, 2)
    assert first[first.index("--model") + 1] == "small"
    assert second[second.index("--model") + 1] == "large"
    assert second[second.index("--append-system-prompt") + 1] == "Be brief."
    assert second[second.index("--max-turns") + 1] == "7"
    assert second[second.index("--resume") + 1] == first[first.index("--session-id") + 1]
    session.turn("two")
    assert session.notes("got") == ["one", "two"]
    story = [one for one in session.story() if not one.startswith("updated")]
    assert story == [*BEGIN, "started", "ACTIVE>IDLE 1 done", "IDLE>ACTIVE 2", "ACTIVE>IDLE 2 done"]
    assert session.process["restarts"] == 0


def test_a_message_is_taken_while_the_process_begins_again(desk: Desk) -> None:
    session = desk.claude(start={"stubborn": True})
    session.script_start().patch(process={"model": "large"}).raise_for_status()
    session.turn("one")
    assert session.notes("got") == ["one"]
    assert len(session.notes("run")) == 2


def test_in_the_middle_of_a_turn_a_new_configuration_is_refused(desk: Desk) -> None:
    session = busy(desk, model="small")
    before = session.show(), session.story()
    answer = session.patch(process={"model": "large"})
    assert code(answer) == (409, "SESSION_BUSY")
    assert answer.json()["retryable"] is True
    assert (session.show(), session.story()) == before
    session.release("go")
    session.wait("IDLE")
    assert session.notes("run")[1:] == []
    session.patch(process={"model": "large"}).raise_for_status()
    runs(session, 2)


def test_a_forced_one_interrupts_the_turn(desk: Desk) -> None:
    session = busy(desk, model="small")
    session.send("two", queue=True)
    pid = session.pid
    session.script()
    session.patch(process={"model": "large"}, force=True).raise_for_status()
    new_run(session, pid)
    wait_for(lambda: session.process["turns"] == 1)
    assert session.notes("got") == ["one", "two"]
    found = desk.live.query("SELECT turn, state FROM turns WHERE session_id = ? ORDER BY turn", session.id)
    assert found == [(1, "INTERRUPTED"), (2, "DONE")]
    assert "ACTIVE>IDLE 1 interrupted" in session.story()


def test_a_suspended_session_s_turn_is_interrupted_by_force_alone(desk: Desk) -> None:
    session = busy(desk, model="small")
    session.do("suspend")
    wait_for(session.stopped)
    assert code(session.patch(process={"model": "large"})) == (409, "SESSION_BUSY")
    session.patch(process={"model": "large"}, force=True).raise_for_status()
    wait_for(lambda: session.pids == [])
    assert session.state == "SUSPENDED"
    session.script().do("resume")
    session.wait("READY").turn("two")
    assert session.notes("got") == ["one", "two"]


def test_a_suspended_process_does_not_run_in_order_to_begin_again(desk: Desk) -> None:
    session = desk.sh("trap '' TERM; echo up; while :; do echo tick; sleep 0.02; done", restart="never").says("up")
    session.do("suspend")
    wait_for(session.stopped)
    written = session.output()
    session.patch(process={"environment": {"ANY": "thing"}}).raise_for_status()
    wait_for(lambda: session.pids == [])
    assert session.state == "SUSPENDED"
    assert session.output() == written


LIMITS: list[dict[str, Any]] = [
    {"maxMemory": 1 << 30},
    {"maxCpu": 1.5},
    {"maxDuration": 3600},
    {"idleTimeout": 3600},
    {"restart": "on-failure"},
    {"toolTimeout": 30},
    {"budget": {"maxTokens": 1_000_000}},
]


@pytest.mark.parametrize("limits", LIMITS, ids="".join)
def test_what_the_daemon_minds_itself_is_changed_without_beginning_again(desk: Desk, limits: dict[str, Any]) -> None:
    session = busy(desk)
    pid = session.pid
    session.patch(process=limits).raise_for_status()
    session.release("go")
    session.wait("IDLE").turn("two")
    assert session.pid == pid
    assert len(session.notes("run")) == 1
    assert session.story().count("updated process") == 1


def test_a_changed_limit_holds(desk: Desk) -> None:
    session = desk.run(*CAT, **QUICK)
    session.patch(process={"quietAfter": 60_000}).raise_for_status()
    session.send("hello")
    session.says("hello")
    assert session.state == "ACTIVE"
    session.patch(process={"restart": "on-failure"}).raise_for_status()
    kill9(session.pid)
    session.wait("ERROR", "INITIALIZING", "READY")
    (failure,) = [one for one in session.events() if one["type"] == "SESSION_ERROR"]
    assert failure["details"]["restartAt"] is not None


def test_every_bad_value_is_listed_and_nothing_changed(desk: Desk) -> None:
    session = desk.run(*CAT)
    before = session.show(), session.story()
    answer = session.patch(
        process={
            "workingDir": "/etc",
            "model": "large",
            "budget": {"maxTokens": 5},
            "maxMemory": 5,
            "maxDuration": 5,
            "environment": {"PATH": "/bin", "LD_PRELOAD": "x"},
        }
    )
    assert code(answer) == (400, "VALIDATION_ERROR")
    assert {one["path"] for one in answer.json()["errors"]} == {
        "process.workingDir",
        "process.model",
        "process.budget",
        "process.maxMemory",
        "process.maxDuration",
        "process.environment.PATH",
        "process.environment.LD_PRELOAD",
    }
    assert (session.show(), session.story()) == before


@pytest.mark.parametrize(
    "process",
    [
        {"command": []},
        {"command": "bash"},
        {"command": None},
        {"workingDir": "relative"},
        {"workingDir": None},
        {"maxTurns": 0},
        {"restart": "always"},
        {"budget": {"maxCostUsd": 0}},
        {"oauthToken": "with blank"},
        {"environment": {"1NAME": "x"}},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_value_of_the_wrong_kind_is_refused(desk: Desk, process: dict[str, Any]) -> None:
    session = desk.run(*CAT)
    assert code(session.patch(process=process)) == (400, "VALIDATION_ERROR")
    assert session.story() == BEGIN


def test_its_secrets_are_replaced(desk: Desk) -> None:
    session = desk.run(*CAT, environment={"FIRST": "1", "BOTH": "1"}, oauthToken="old-token")
    pid = session.pid
    assert environment_of(pid)["CLAUDE_CODE_OAUTH_TOKEN"] == "old-token"
    session.patch(process={"oauthToken": "new-token", "environment": {"SECOND": "2", "BOTH": "2"}}).raise_for_status()
    pid = new_run(session, pid)
    found = environment_of(pid)
    assert (found["CLAUDE_CODE_OAUTH_TOKEN"], found["SECOND"], found["BOTH"]) == ("new-token", "2", "2")
    assert "FIRST" not in found
    session.patch(process={"oauthToken": None, "environment": None}).raise_for_status()
    found = environment_of(new_run(session, pid))
    assert not {"CLAUDE_CODE_OAUTH_TOKEN", "SECOND", "BOTH"} & found.keys()


def test_a_change_that_changes_nothing_writes_nothing(desk: Desk) -> None:
    session = desk.claude(model="small", environment={"A": "1"})
    pid, before = session.pid, session.story()
    for process in ({}, {"model": "small"}, {"environment": {"A": "1", **session.environment}}):
        assert session.patch(process=process).status_code == 200
    assert (session.pid, session.story()) == (pid, before)


def test_what_is_fixed_of_a_session_stays_as_it_was(desk: Desk) -> None:
    session = desk.run(*CAT)
    before = session.show()
    pid = session.pid
    answer = session.patch(metadata={"a": 1}, userId="me", process={"environment": {"A": "1"}})
    assert answer.status_code == 200
    new_run(session, pid)
    after = session.wait("READY").show()
    assert (after["metadata"], after["userId"]) == ({"a": 1}, "me")
    fixed = before.keys() - {"metadata", "userId", "process", "constraints"}
    assert {name: after[name] for name in fixed} == {name: before[name] for name in fixed}
    for name in fixed:
        assert code(session.patch(**{name: before[name]})) == (400, "VALIDATION_ERROR")


def test_a_failed_session_begins_again_as_it_is_configured_by_then(desk: Desk) -> None:
    session = desk.make("sh", "-c", "exit 3").wait("ERROR")
    session.patch(process={"command": [*CAT], **QUICK}).raise_for_status()
    assert session.process["command"] == [*CAT]
    session.do("resume")
    session.wait("READY").turn("hello")
    assert session.output() == "hello\n"


def test_an_own_token_changes_no_configuration(desk: Desk) -> None:
    session = desk.run(*CAT)
    answer = desk.live.agent(session.token).patch(session.path, json={"process": {"restart": "never"}})
    assert code(answer) == (401, "INVALID_MASTER_PASSWORD")


def test_two_changes_at_once_are_both_made_or_one_is_refused(desk: Desk) -> None:
    session = desk.run(*CAT)
    pid = session.pid
    changes: list[dict[str, Any]] = [{"environment": {"A": "1"}}, {"maxDuration": 3600}, {"restart": "on-failure"}]
    with ThreadPoolExecutor(3) as several:
        answers = list(several.map(lambda one: session.patch(process=one), changes))
    taken = [change for change, answer in zip(changes, answers, strict=True) if answer.status_code == 200]
    assert taken
    assert {code(answer) for answer in answers} <= {(200, None), (409, "SESSION_BUSY")}
    (text,) = desk.live.query("SELECT config FROM processes WHERE session_id = ?", session.id)[0]
    for change in taken:
        for name in change.keys() - {"environment"}:
            assert f'"{name}"' in text
    if changes[0] in taken:
        assert environment_of(new_run(session, pid))["A"] == "1"


def test_every_field_of_a_configuration_can_be_changed() -> None:
    assert PatchProcess.__struct_fields__ == ProcessConfig.__struct_fields__
