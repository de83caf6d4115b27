"""`daemon session send`, `output` and `attach`: what a process says, and what it is told."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.cli.process_output import Line
from daemon.cli.speaker import Speaker, harmless
from tests.cli.process_desk import Going, ProcessDesk
from tests.support.daemon_process import PASSWORD, environment, wait_for
from tests.support.terminal import at_terminal

ODD = b"plain\n\n\xff\xfe no text\nhalf\rhalf\r\n\x00\nlast without an end\r"
"""Bytes that a stream of text cannot carry as they are."""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessDesk]:
    started = ProcessDesk(tmp_path_factory.mktemp("conversation"), DAEMON_PROCESSES_OUTPUT_MAX_MB="1")
    yield started
    started.cli("stop", "--kill-processes")
    started.process.communicate(timeout=30)


@pytest.fixture
def own_desk(tmp_path: Path) -> Iterator[ProcessDesk]:
    """A daemon that may be stopped."""
    started = ProcessDesk(tmp_path)
    yield started
    started.cli("stop", "--kill-processes")
    started.process.communicate(timeout=30)


def python(script: str) -> tuple[str, ...]:
    return (sys.executable, "-u", "-c", script)


# --- send


def test_a_message_is_sent_as_text_or_from_standard_input(desk: ProcessDesk) -> None:
    session = desk.begin()
    assert desk.cli("session", "send", session, "one").out == "turn 1\n"
    desk.wait(session, "IDLE")
    assert desk.cli("session", "send", session, "-", "--json", stdin="two\nlines\n").json() == {"turn": 2}
    desk.wait(session, "IDLE")
    waited = desk.cli("session", "send", session, "--wait", stdin="three\nlines\n")
    assert (waited.code, waited.out, waited.err) == (0, "You said: three\nlines\n", "")
    for nothing in ("", "\n"):
        assert desk.cli("session", "send", session, stdin=nothing).code == 2
    assert desk.cli("session", "send", session, "x" * 100_000).code == 0


def test_a_busy_session_takes_what_may_wait(desk: ProcessDesk) -> None:
    session = desk.begin()
    desk.cli("session", "send", session, "tool")
    desk.wait(session, "ACTIVE")
    busy = desk.cli("session", "send", session, "more")
    assert (busy.code, "SESSION_BUSY" in busy.err, "--queue" in busy.err) == (1, True, True)
    assert desk.cli("session", "send", session, "more", "--queue").out == "turn 2\n"
    desk.cli("session", "kill", session)


def test_waiting_prints_the_words_of_claude_and_raw_lines_with_json(desk: ProcessDesk) -> None:
    session = desk.begin()
    assert desk.cli("session", "send", session, "lines 3", "--wait").out == "line 0\nline 1\nline 2\n"
    lines = [
        json.loads(line) for line in desk.cli("session", "send", session, "x", "--wait", "--json").out.splitlines()
    ]
    assert [line["type"] for line in lines] == ["system", "assistant", "result"]
    long = desk.cli("session", "send", session, "long 3000000", "--wait")
    assert (long.code, len(long.out)) == (0, 3_000_001)
    raw = desk.cli("session", "send", session, "long 3000000", "--wait", "--json").out.splitlines()
    assert [json.loads(line)["type"] for line in raw] == ["system", "assistant", "result"]


def test_waiting_for_a_queued_message_ends_with_its_own_turn(desk: ProcessDesk) -> None:
    session = desk.begin(*python("for line in open(0): print('got', line, end='')"), quietAfter=300)
    first = Going(desk, "session", "send", session, "one", "--wait")
    desk.wait(session, "ACTIVE")
    second = desk.cli("session", "send", session, "two", "--queue", "--wait")
    assert (first.end(), first.out.splitlines()[0], second.code) == (0, b"got one", 0)
    assert second.out.splitlines()[-1] == "got two"


def test_how_a_turn_ended_is_the_exit_code(desk: ProcessDesk) -> None:
    session = desk.begin(toolTimeout=1)
    failed = desk.cli("session", "send", session, "fail", "--wait")
    assert (failed.code, failed.out, "turn 1 has failed" in failed.err) == (1, "You said: fail\n", True)
    interrupted = desk.cli("session", "send", session, "tool", "--wait")
    assert (interrupted.code, "turn 2 was interrupted" in interrupted.err) == (1, True)
    crashed = desk.cli("session", "send", session, "exit 3", "--wait")
    assert (crashed.code, "crashed, exit code 3" in crashed.err.splitlines()[-1]) == (1, True)
    once = desk.begin("sh", "-c", "read line; echo got $line")
    ended = desk.cli("session", "send", once, "it", "--wait")
    assert (ended.code, ended.out, "CLOSED, exited, exit code 0" in ended.err) == (0, "got it\n", True)
    over = desk.cli("session", "send", once, "it", "--wait")
    assert (over.code, "INVALID_STATE_TRANSITION" in over.err) == (1, True)


def test_waiting_goes_on_through_a_suspension_and_ends_with_a_kill(desk: ProcessDesk) -> None:
    session = desk.begin()
    waiting = Going(desk, "session", "send", session, "tool", "--wait")
    desk.wait(session, "ACTIVE")
    desk.cli("session", "suspend", session)
    wait_for(lambda: "SUSPENDED by owner" in waiting.err)
    desk.cli("session", "resume", session)
    wait_for(lambda: "READY" in waiting.err)
    desk.cli("session", "kill", session)
    assert (waiting.end(), "nobody knows how turn 1 ended" in waiting.err) == (1, True)


def test_a_session_without_a_process_says_so(desk: ProcessDesk) -> None:
    session = desk.ask("POST", "/v1/sessions", {"agentId": desk.agent})["id"]
    for arguments in (
        ["send", session, "x"],
        ["send", session, "x", "--wait"],
        ["output", session],
        ["attach", session],
    ):
        ended = desk.cli("session", *arguments, stdin="")
        assert (ended.code, ended.err.count("\n"), "has no process" in ended.err) == (1, 1, True)
    assert desk.cli("session", "attach", "no id", stdin="").code == 2


# --- output


def test_output_is_exactly_what_was_written_followed_or_not(desk: ProcessDesk) -> None:
    script = f"import os; os.write(1, {ODD!r}); os.write(2, b'an error'); input()"
    session = desk.begin(*python(script))
    following = Going(desk, "session", "output", session, "-f")
    wait_for(lambda: b"\0\n" in following.out)
    desk.ask("POST", f"/v1/sessions/{session}/messages", {"content": "end"})
    desk.wait(session, "CLOSED")
    assert (following.end(), following.out, following.said) == (0, ODD, b"")
    again = Going(desk, "session", "output", session, "-f")
    assert (again.end(), again.out) == (0, ODD)
    once = Going(desk, "session", "output", session)
    assert (once.end(), once.out) == (0, ODD)
    assert desk.cli("session", "output", session, "--stream", "stderr").out == "an error"
    tail = Going(desk, "session", "output", session, "--offset", str(len(ODD) - 4))
    assert (tail.end(), tail.out) == (0, ODD[-4:])
    beyond = desk.cli("session", "output", session, "--offset", "1000")
    assert (beyond.code, beyond.out, "must not be larger" in beyond.err) == (1, "", True)


def test_json_lines_are_the_same_followed_or_not(desk: ProcessDesk) -> None:
    script = (
        "import sys; print('{\"a\": 1}'); print('  [2]'); print('{broken'); print(); print('half\\rhalf\\r');"
        "print('[3]'); print('{' + 'x' * 2500000); sys.stdout.write('end')"
    )
    session = desk.ask(
        "POST", "/v1/sessions",
        {"agentId": desk.agent, "process": {"command": list(python(script)), "workingDir": str(desk.work)}},
    )["id"]  # fmt: skip
    desk.wait(session, "CLOSED")
    listed, followed = (
        [json.loads(line) for line in desk.cli("session", "output", session, "--json", *more).out.splitlines()]
        for more in ([], ["-f"])
    )
    assert listed == followed
    kinds = ["json", "text", "text", "text", "text", "json", "piece", "piece", "last-piece", "text"]
    assert [line["kind"] for line in listed] == kinds
    assert (listed[0], listed[4]["line"]) == ({"offset": 9, "kind": "json", "line": '{"a": 1}'}, "half\rhalf")
    assert listed[-1]["line"] == "end"
    rest = desk.cli("session", "output", session, "--json", "--offset", "9").out.splitlines()
    assert json.loads(rest[0]) == listed[1]


def test_what_is_not_kept_any_more_is_left_out_with_a_note(desk: ProcessDesk) -> None:
    script = "for n in range(60000): print(f'line {n:06d} ' + 'x' * 40)\ninput()"
    session = desk.begin(*python(script))

    def noted() -> str:
        return desk.cli("session", "output", session).err

    first = int(wait_for(noted).split("before byte ")[1].split()[0])
    for more in ([], ["-f"]):
        command = Going(desk, "session", "output", session, *more)
        wait_for(lambda command=command: b"line 059999" in command.out and command.out.endswith(b"\n"))
        assert (command.interrupt() if more else command.end(), command.err.count("note: ")) == (130 if more else 0, 1)
        lines = command.out.decode().splitlines()
        assert lines == [f"line {n:06d} {'x' * 40}" for n in range(60_000 - len(lines), 60_000)]
        assert len(lines) * 53 < 1_100_000
    as_json = desk.cli("session", "output", session, "--json")
    assert json.loads(as_json.out.splitlines()[0])["offset"] >= first
    desk.cli("session", "kill", session)


def test_following_goes_on_over_a_stop_and_a_kill_without_gap_or_repeat(own_desk: ProcessDesk) -> None:
    desk = own_desk
    script = "import time\nfor n in range(10**6): print(n); time.sleep(0.005)"
    session = desk.begin(*python(script))
    raw = Going(desk, "session", "output", session, "-f")
    lines = Going(desk, "session", "output", session, "-f", "--json")
    for times, end in enumerate((desk.stop, desk.kill9), 1):
        wait_for(lambda: len(raw.out) > 100 and len(lines.out) > 100)
        end()
        wait_for(lambda: "trying again" in raw.err and "trying again" in lines.err)
        desk.start()
        for one in (raw, lines):
            wait_for(lambda one=one, times=times: one.err.count("connected again") == times)
            seen = len(one.out)
            wait_for(lambda one=one, seen=seen: len(one.out) > seen)
    desk.cli("session", "kill", session)
    assert (raw.end(), lines.end()) == (0, 0)
    numbers = raw.out.decode().splitlines()
    assert numbers == [str(n) for n in range(len(numbers))]
    parsed = [json.loads(line) for line in lines.out.splitlines()]
    assert [line["line"] for line in parsed] == numbers
    assert parsed[-1]["offset"] == len(raw.out)
    assert PASSWORD not in raw.err + lines.err


@pytest.mark.parametrize("arguments", [["output", "-f"], ["output", "-f", "--json"], ["attach"]])
def test_a_pipe_that_nobody_reads_ends_it_quietly(desk: ProcessDesk, arguments: list[str]) -> None:
    session = desk.begin(*python("while True: print('x' * 1000)"))
    command = subprocess.Popen(
        [sys.executable, "-m", "daemon", "session", *arguments, session],
        env=environment(desk.home, DAEMON_MASTER_PASSWORD=PASSWORD),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert command.stdout is not None
    assert command.stderr is not None
    os.read(command.stdout.fileno(), 10)
    command.stdout.close()
    assert command.wait(10) == 0
    said = [line for line in command.stderr.read().decode().splitlines() if not line.startswith(("·", "note:"))]
    assert said == []
    command.stderr.close()
    desk.cli("session", "kill", session)


# --- attach


def test_through_a_pipe_every_line_is_sent_and_answered_before_it_detaches(desk: ProcessDesk) -> None:
    session = desk.begin()
    messages = [f"message {n}" for n in range(40)]
    ended = desk.cli("session", "attach", session, stdin="\n\n".join(messages))
    assert ended.code == 0, ended.err
    assert ended.out.splitlines() == [f"You said: {one}" for one in messages]
    assert ended.err.count("done") == 40
    assert "detached; the session goes on" in ended.err.splitlines()[-1]
    assert desk.show(session)["state"] == "IDLE"
    assert desk.cli("session", "attach", session, stdin="").code == 0


def test_attached_over_a_restart_until_the_session_is_over(own_desk: ProcessDesk) -> None:
    desk = own_desk
    session = desk.begin("cat", quietAfter=100)
    attached = Going(desk, "session", "attach", session)
    wait_for(lambda: "attached to" in attached.err)
    attached.type("one\n")
    wait_for(lambda: "IDLE, turn 1, done" in attached.err)
    desk.stop()
    wait_for(lambda: attached.err.count("trying again") == 2)
    attached.type("lost\n")
    wait_for(lambda: "not sent" in attached.err)
    desk.start()
    wait_for(lambda: attached.err.count("connected again") == 2)
    attached.type("two\n")
    wait_for(lambda: "IDLE, turn 2, done" in attached.err)
    desk.cli("session", "revoke", session)
    assert (attached.end(), attached.out) == (1, b"one\ntwo\n")
    assert "CLOSED, revoked, exit code 0" in attached.err
    assert attached.err.splitlines()[-1] == "note: the session is over"


def test_at_a_terminal_ctrl_c_and_ctrl_d_detach_and_end_nothing(desk: ProcessDesk) -> None:
    session = desk.begin()
    env = environment(desk.home, DAEMON_MASTER_PASSWORD=PASSWORD)
    command = [sys.executable, "-m", "daemon", "session", "attach", session]
    for turn, key in ((1, "\x03"), (2, "\x04")):
        replies = {"ends nothing\x1b[0m": "hello", f"IDLE, turn {turn}, done\x1b[0m": key}
        code, screen = at_terminal(command, env, replies)
        assert code == 0, screen
        assert "You said: hello" in screen
        assert f"\x1b[2m· ACTIVE, turn {turn}\x1b[0m" in screen
        assert "detached; the session goes on" in screen
    assert desk.show(session)["state"] == "IDLE"


def test_a_session_that_fails_is_told_and_a_pipe_ends_with_it(desk: ProcessDesk) -> None:
    session = desk.begin()
    ended = desk.cli("session", "attach", session, stdin="exit 4\n")
    assert (ended.code, "ERROR, crashed, exit code 4" in ended.err) == (1, True)
    assert f"daemon session resume {session}" in ended.err.splitlines()[-1]
    refused = desk.cli("session", "attach", session, stdin="hello\n")
    assert (refused.code, "error: not sent: " in refused.err) == (1, True)
    desk.cli("session", "kill", session)
    over = desk.cli("session", "attach", session, stdin="hello\n")
    assert (over.code, over.err.startswith("error: The session is over")) == (1, True)


# --- words


def test_nothing_that_a_process_says_steers_the_terminal() -> None:
    said = "a\x1b[31mred\x1b[0m\x1b]0;title\x07\x1b]52;c;eA==\x1b\\\x1b[6n\x1bP1$q\x1b\\ b\x9b1m\tc\r\nd\re\x07"
    assert harmless(said) == "ared b1m\tc\nd\ne"


def test_lines_that_are_not_as_expected_are_printed_or_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    speaker = Speaker("claude", raw=False)
    for text in (
        "a warning", '{"type": 1}', '{"type": "assistant"}', '{"type": "other", "result": "x"}', "[1]",
        '{"type": "assistant", "message": {"content": "text alone"}}',
        '{"type": "assistant", "message": {"content": "of a helper"}, "parent_tool_use_id": "toolu_1"}',
        '{"type": "result", "subtype": "success", "result": "another result"}',
        '{"type": "result", "subtype": "error_max_turns"}',
    ):  # fmt: skip
        speaker.say(Line(0, "json", text))
    captured = capsys.readouterr()
    wanted = ["a warning", '{"type": 1}', '{"type": "assistant"}', "[1]", "text alone", "another result"]
    assert captured.out.splitlines() == wanted
    assert captured.err == "· error_max_turns\n"
