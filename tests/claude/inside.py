"""Claude Code under the daemon, end to end; `test_real_cli_*.py` run each of these in a namespace of its own."""

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.claude import readme
from tests.claude.world import MODEL, PATIENCE, STOPPED, World, arguments, bytes_under, states, tree
from tests.support.claude_cli import QUIET
from tests.support.daemon_process import wait_for
from tests.support.services.messages_api import ApiError, FakeMessagesApi, Held, Text, ToolUse, Usage, last_words

PROMPT = "You are a careful researcher.\nAnswer in one sentence."

pytestmark = pytest.mark.timeout(280)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Start a world that ends with the test; arguments are the daemon's settings."""
    with contextlib.ExitStack() as stack:

        def make(**settings: str) -> World:
            api = stack.enter_context(FakeMessagesApi())
            world = World(api, tmp_path, os.environ["DAEMON_TEST_CLAUDE"], **settings)
            stack.callback(world.close)
            return world

        yield make


@pytest.fixture
def world(start: Callable[..., World]) -> World:
    """A world with default settings."""
    return start()


def test_a_session_is_told_stopped_killed_restarted_and_ended(world: World) -> None:
    world.api.usage = Usage(120, 30)
    session = world.session(
        systemPrompt=PROMPT,
        maxTurns=7,
        allowedTools=["Read", "Bash(ls:*)"],
        budget={"maxCostUsd": 2.5},
    )
    process = session.process
    pid: int = process["pid"]
    told = arguments(pid)
    for words in (
        ["--model", MODEL], ["--max-turns", "7"], ["--append-system-prompt", PROMPT], ["--max-budget-usd", "2.5"],
        ["--allowedTools=Read,Bash(ls:*)"],
    ):  # fmt: skip
        assert words == told[(at := told.index(words[0])) : at + len(words)]
    assert (process["command"], process["turns"], os.readlink(f"/proc/{pid}/cwd")) == (
        "claude",
        0,
        str(world.workspace),
    )

    assert session.turn("one") == "done"
    queued = [session.send("two"), session.send("three", queue=True)]
    assert [session.outcome(turn) for turn in queued] == ["done", "done"]
    session.ask("POST", "/suspend", reason="lunch")
    wait_for(lambda: states(pid) <= STOPPED, PATIENCE)
    assert session.state == "SUSPENDED"
    session.ask("POST", "/resume")
    wait_for(lambda: not states(pid) & STOPPED, PATIENCE)

    world.restart()
    assert (session.state, session.process["pid"], arguments(pid)) == ("READY", pid, told)
    assert session.turn("four") == "done"
    assert session.process["pid"] == pid
    ended = session.close()
    assert (ended["exitCode"], ended["signal"], ended["pid"], ended["restarts"]) == (0, None, None, 0)
    assert not psutil.pid_exists(pid)

    used = session.show()["usage"]
    assert (used["turns"], used["inputTokens"], used["outputTokens"]) == (4, 480, 120)
    assert used["costUsd"] == pytest.approx(world.price(4), abs=1e-9)
    assert ended["usage"] == used
    assert [event["details"]["exitCode"] for event in session.events("SESSION_CLOSED")] == [0]
    newest = session.newest()
    assert (newest["model"], len(world.api.messages)) == (MODEL, 4)
    assert PROMPT in "".join(block["text"] for block in newest["system"])
    assert session.words() == ["one", "two", "three", "four"]
    assert [line["result"] for line in session.said("result")] == [f"echo: {text}" for text in session.words()]


def test_a_turn_is_over_once_however_the_daemon_ends_meanwhile(world: World) -> None:
    session = world.session()
    pid = session.process["pid"]
    for number, when in enumerate(("before", "while", "after"), 1):
        held = Held(Text(f"answer {number}"))
        world.api.reply_with(held)
        assert session.send(f"question {number}") == number
        assert held.reached.wait(PATIENCE)

        def meanwhile(number: int = number, held: Held = held, when: str = when) -> None:
            if when == "while":
                world.api.release(held)
                output = world.home / "processes" / session.id / "stdout"
                wait_for(lambda: f'"result":"answer {number}"' in output.read_text(), PATIENCE)

        if when != "before":
            world.restart(after=meanwhile)
            assert session.process["pid"] == pid
        world.api.release(held)
        if when == "before":
            world.daemon.kill9()
            world.daemon.start()
            world.connect()
        assert session.outcome(number) == "done"
    world.restart()
    assert session.turn("question 4") == "done"
    assert [session.outcomes(number) for number in range(1, 5)] == [["done"]] * 4
    assert len(world.api.messages) == 4
    used = session.show()["usage"]
    assert (used["turns"], used["costUsd"]) == (4, pytest.approx(world.price(4), abs=1e-9))
    assert session.words() == [f"question {number}" for number in range(1, 5)]
    assert session.close()["exitCode"] == 0


def test_a_tree_that_is_suspended_in_mid_turn_stands_still_with_its_tools(world: World) -> None:
    world.api.reply_with(ToolUse("Bash", {"command": "for i in 1 2 3 4; do echo $i >>steps; sleep 0.3; done"}))
    session = world.session(allowedTools=["Bash"])
    steps = world.workspace / "steps"
    turn = session.send("count")
    wait_for(steps.exists, PATIENCE)
    pid = session.process["pid"]
    session.ask("POST", "/suspend")
    wait_for(lambda: states(pid) <= STOPPED, PATIENCE)
    assert len(tree(pid)) > 1
    before = steps.read_text(), session.output()
    time.sleep(2)  # what must not happen has no fact to wait for: six of its steps would fit
    assert (steps.read_text(), session.output()) == before
    assert session.outcomes(turn) == []
    session.ask("POST", "/resume")
    assert session.outcome(turn) == "done"
    assert steps.read_text().split() == ["1", "2", "3", "4"]


def test_a_process_that_made_room_goes_on_with_its_conversation(start: Callable[..., World]) -> None:
    world = start(DAEMON_PROCESSES_MAX_PROCESSES="1")
    session = world.session()
    assert [session.turn("one"), session.turn("two")] == ["done", "done"]
    pid = session.process["pid"]
    other = world.session()
    wait_for(lambda: not psutil.pid_exists(pid), PATIENCE)
    assert (session.state, session.process["pid"], session.process["reason"]) == ("IDLE", None, "pool")
    assert other.turn("elsewhere") == "done"
    assert other.words() == ["elsewhere"]
    assert session.turn("three") == "done"
    assert session.words() == ["one", "two", "three"]
    told = arguments(session.process["pid"])
    assert "--resume" in told
    assert "--session-id" not in told
    assert other.process["pid"] is None
    used = session.show()["usage"]
    assert (used["turns"], used["costUsd"]) == (3, pytest.approx(world.price(3), abs=1e-9))
    assert session.process["restarts"] == 0


def test_an_idle_session_is_suspended_and_a_message_brings_it_back(start: Callable[..., World]) -> None:
    world = start(DAEMON_PROCESSES_DEFAULT_IDLE_TIMEOUT="3")
    session = world.session()
    assert session.turn("one") == "done"
    session.until("SUSPENDED")
    wait_for(lambda: session.process["pid"] is None, PATIENCE)
    assert [event["details"]["by"] for event in session.events("SESSION_SUSPENDED")] == ["idle"]
    assert session.turn("two") == "done"
    assert session.words() == ["one", "two"]
    used = session.show()["usage"]
    assert (used["turns"], used["costUsd"]) == (2, pytest.approx(world.price(2), abs=1e-9))


def test_a_budget_warns_suspends_and_can_be_raised(world: World) -> None:
    each = world.price(1)
    session = world.session(budget={"maxCostUsd": 2.2 * each})
    assert session.turn("one") == "done"
    assert session.events("BUDGET_WARNING") == []
    assert session.turn("two") == "done"
    (warning,) = session.events("BUDGET_WARNING")
    assert warning["severity"] == "warning"
    assert warning["details"]["budget"] == "maxCostUsd"
    assert warning["details"]["used"] == pytest.approx(2 * each)
    assert session.state == "IDLE"
    session.turn("three")
    session.until("SUSPENDED")
    (suspended,) = session.events("SESSION_SUSPENDED")
    assert suspended["details"] == {"reason": "budget", "by": "budget"}
    refused = world.owner.post(f"/v1/sessions/{session.id}/messages", json={"content": "four", "queue": True})
    assert (refused.status_code, refused.json()["code"]) == (409, "INVALID_STATE_TRANSITION")
    session.ask("PATCH", process={"budget": {"maxCostUsd": 10 * each}})
    session.ask("POST", "/resume")
    assert session.turn("four") == "done"
    assert session.words() == ["one", "two", "three", "four"]
    used = session.show()["usage"]
    assert (used["turns"], used["costUsd"]) == (4, pytest.approx(world.price(4), abs=1e-9))
    told = arguments(session.process["pid"])
    assert float(told[told.index("--max-budget-usd") + 1]) == pytest.approx(7 * each, abs=1e-6)


def test_a_tool_that_takes_too_long_is_interrupted_and_the_process_lives_on(world: World) -> None:
    world.api.reply_with(ToolUse("Bash", {"command": "touch begun; sleep 120; touch over"}))
    session = world.session(allowedTools=["Bash"], toolTimeout=1)
    pid = session.process["pid"]
    turn = session.send("sleep")
    wait_for((world.workspace / "begun").exists, PATIENCE)
    assert session.outcome(turn) == "interrupted"
    wait_for(lambda: len(tree(pid)) == 1, PATIENCE)
    assert session.turn("go on") == "done"
    assert session.process["pid"] == pid
    assert session.words()[-1] == "go on"
    assert not (world.workspace / "over").exists()


def test_an_api_that_fails_fails_the_turn_alone(world: World) -> None:
    session = world.session()
    world.api.reply_with(ApiError(529))
    pid = session.process["pid"]
    assert session.turn("one") == "failed"
    assert session.turn("two") == "done"
    assert (session.state, session.process["pid"], session.process["turns"]) == ("IDLE", pid, 2)


def test_an_oauth_token_reaches_the_api_and_nothing_else(world: World) -> None:
    secret, variable = "sk-ant-oat01-THE-TOKEN-THAT-NOBODY-MAY-SEE", "the-variable-that-nobody-may-see"
    environment = {**world.variables(SECRET_THING=variable)}
    del environment["ANTHROPIC_API_KEY"]
    session = world.session(oauthToken=secret, environment=environment)
    assert session.turn("one") == "done"
    (request,) = [one for one in world.api.requests if world.api.sends(one)]
    assert request.headers["authorization"] == f"Bearer {secret}"
    assert "x-api-key" not in request.headers
    shown: list[str] = []
    for path in (f"/v1/sessions/{session.id}", "/v1/owner/sessions", "/v1/owner/processes", "/v1/admin/audit"):
        shown.append(world.owner.get(path).raise_for_status().text)
    shown.append(session.output() + session.errors())
    shown.append(world.owner.patch(f"/v1/sessions/{session.id}", json={"process": {"toolTimeout": 5}}).text)
    shown += [word for pid in psutil.pids() for word in arguments(pid)]
    world.restart()
    shown.append(session.output())
    world.daemon.stop()
    for words in (secret, variable):
        assert [text for text in shown if words in text] == []
        files = bytes_under(world.home, world.workspace, world.user_home)
        assert len(files) > 10
        assert [path for path, content in files.items() if words.encode() in content] == []
    world.daemon.start()
    world.connect()
    assert session.turn("two") == "done"


def test_what_the_configuration_says_is_obeyed_after_a_change(world: World) -> None:
    session = world.session(systemPrompt="The first prompt.")
    assert session.turn("one") == "done"
    pid = session.process["pid"]
    session.ask("PATCH", process={"systemPrompt": "The second prompt.", "model": "test-model-2"})
    wait_for(lambda: session.process["pid"] not in {None, pid}, PATIENCE)
    assert session.turn("two") == "done"
    newest = session.newest()
    said = "".join(block["text"] for block in newest["system"])
    assert newest["model"] == "test-model-2"
    assert "The second prompt." in said
    assert "The first prompt." not in said
    assert session.words() == ["one", "two"]


def test_a_command_that_was_killed_is_started_again_and_nothing_is_done_twice(world: World) -> None:
    session = world.session(restart="on-failure")
    assert session.turn("one") == "done"
    wait_for(lambda: '"type":"assistant"' in world.transcripts(), PATIENCE)  # written a little after it is said
    pid = session.process["pid"]
    held = Held(Text("never heard"))
    world.api.reply_with(held)
    session.send("two")
    assert held.reached.wait(PATIENCE)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: session.process["restarts"] == 1, PATIENCE)
    session.until("READY")
    assert session.turn("three") == "done"
    assert session.words() in (["one", "three"], ["one", "two", "three"])
    assert len(world.api.messages) == 3
    assert [event["details"]["signal"] for event in session.events("SESSION_ERROR")] == [signal.SIGKILL]


@pytest.mark.skipif(shutil.which("curl") is None, reason="it needs curl")
def test_a_tool_finds_the_token_of_its_session(world: World) -> None:
    command = 'curl -s -H "Authorization: Bearer $(cat "$DAEMON_TOKEN_FILE")" "$DAEMON_URL/v1/session" >who.json'
    world.api.reply_with(ToolUse("Bash", {"command": command}))
    session = world.session(allowedTools=["Bash"])
    assert session.turn("who are you?") == "done"
    who = json.loads((world.workspace / "who.json").read_text())
    assert (who["id"], who["agentName"], who["state"]) == (session.id, "researcher", "ACTIVE")


def test_a_conversation_that_the_command_has_lost_begins_again(start: Callable[..., World]) -> None:
    world = start(DAEMON_PROCESSES_MAX_PROCESSES="1")
    session = world.session(restart="on-failure")
    assert session.turn("one") == "done"
    world.session()
    wait_for(lambda: session.process["pid"] is None, PATIENCE)
    shutil.rmtree(world.user_home / ".claude" / "projects")
    session.send("two")
    wait_for(lambda: session.process["restarts"] == 1, PATIENCE)
    session.until("READY")
    (failed,) = session.events("SESSION_ERROR")
    assert (failed["details"]["reason"], failed["details"]["exitCode"]) == ("crashed", 1)
    assert "No conversation found" in session.errors()
    assert session.turn("three") == "done"
    assert session.words() == ["three"]
    assert "--resume" not in arguments(session.process["pid"])


def test_a_new_bound_for_tools_is_obeyed_by_a_process_that_runs(world: World) -> None:
    session = world.session(allowedTools=["Bash"])
    assert session.turn("one") == "done"
    session.ask("PATCH", process={"toolTimeout": 1})
    world.api.reply_with(ToolUse("Bash", {"command": "sleep 8"}))
    assert session.turn("two") == "interrupted"


def test_a_tool_is_bounded_after_a_restart_of_the_daemon_too(world: World) -> None:
    session = world.session(allowedTools=["Bash"], toolTimeout=3)
    world.api.reply_with(ToolUse("Bash", {"command": "touch begun; sleep 15"}))
    turn = session.send("one")
    wait_for((world.workspace / "begun").exists, PATIENCE)
    world.restart()
    assert session.outcome(turn) == "interrupted"


def test_a_tool_that_is_suspended_does_not_run_out_of_time(world: World) -> None:
    session = world.session(allowedTools=["Bash"], toolTimeout=4)
    world.api.reply_with(ToolUse("Bash", {"command": "touch begun; sleep 1"}))
    turn = session.send("one")
    wait_for((world.workspace / "begun").exists, PATIENCE)
    session.ask("POST", "/suspend")
    time.sleep(6)  # longer than the tool may take, by the machine's clock, which is the one that counts here
    session.ask("POST", "/resume")
    assert session.outcome(turn) == "done"


@pytest.mark.skipif(shutil.which("jq") is None, reason="the README's commands need jq")
def test_every_command_of_the_readme_says_what_it_shows(tmp_path: Path) -> None:
    wrapper = tmp_path / "claude" / "claude"
    wrapper.parent.mkdir()
    with FakeMessagesApi() as api:
        variables = {**QUIET, "ANTHROPIC_BASE_URL": api.url}
        words = " ".join(f"{name}={value}" for name, value in variables.items())
        wrapper.write_text(f'#!/bin/sh\nexec env {words} {os.environ["DAEMON_TEST_CLAUDE"]}/claude "$@"\n')
        wrapper.chmod(0o755)
        api.usage = Usage(4, 12, 0, 14_880)
        api.reply_with(*(Text(answer) for answer in readme.ASKED.values()))
        done = readme.run(tmp_path, wrapper.parent)
        assert done.returncode == 0, done.stdout
        assert readme.comparable(done.stdout) == readme.comparable(readme.shown())
        assert [last_words(body) for body in api.messages] == list(readme.ASKED)
        assert api.requests[-1].headers["authorization"] == f"Bearer {readme.TOKEN}"
