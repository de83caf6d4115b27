"""`daemon session create --process`, `update`, `kill`, `show`, `daemon ps`, `stop --kill-processes`."""

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cli.process_desk import ProcessDesk
from tests.support.daemon_process import PASSWORD, Ended, cli, environment, wait_for
from tests.support.terminal import at_terminal

TOKEN = "sk-ant-oat01-TEST-token-of-an-owner"
SECRET = "TEST-secret-of-a-file"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessDesk]:
    started = ProcessDesk(tmp_path_factory.mktemp("processes"))
    yield started
    assert started.cli("stop", "--kill-processes").code == 0
    started.process.communicate(timeout=30)
    written = Path(started.ready["logFile"]).read_text()
    assert [one for one in (TOKEN, SECRET) if one in written] == []


def quiet(ended: Ended) -> Ended:
    """Return how a command ended that showed no secret."""
    assert [one for one in (TOKEN, SECRET) if one in ended.out + ended.err] == []
    return ended


def attempt(desk: ProcessDesk, *arguments: str, **more: Any) -> Ended:
    """Return how the attempt to make a session ended."""
    where = ("session", "create", "--agent", "worker", "--json", "--workdir", str(desk.work))
    return quiet(desk.cli(*where, *arguments, **more))


def create(desk: ProcessDesk, *arguments: str, **more: Any) -> str:
    """Make a session and return its id once its process is READY."""
    ended = attempt(desk, *arguments, **more)
    assert ended.code == 0, ended.err
    made: str = ended.json()["id"]
    desk.wait(made, "READY")
    return made


def answer(desk: ProcessDesk, session: str, message: str) -> str:
    """Return what Claude Code says to a message."""
    ended = quiet(desk.cli("session", "send", session, message, "--wait"))
    assert ended.code == 0, ended.err
    return ended.out.strip()


def fingerprint(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


# --- create


def test_a_command_stands_after_two_dashes_with_options_of_its_own(desk: ProcessDesk) -> None:
    shown = desk.show(create(desk, "--", "cat", "-u"))
    assert (shown["process"]["command"], shown["createdBy"]) == (["cat", "-u"], "process")
    where = ("--agent", "worker", "--workdir", str(desk.work))
    people = desk.cli("session", "create", *where, "cat", "--json")
    assert people.out.splitlines()[-1].startswith("token")
    assert "daemon session attach" in people.err


def test_options_reach_claude(desk: ProcessDesk) -> None:
    prompt = desk.work / "prompt.md"
    prompt.write_text("Be brief.\nÄ")
    made = create(
        desk, "--process", "claude", "--model", "m-1", "--max-turns", "7", "--system-prompt", f"@{prompt}",
        "--allow-tool", "Bash(ls:*)", "--allow-tool", "Read", "--budget-usd", "5", "--budget-tokens", "100000",
        "--max-memory", "512m", "--max-cpu", "1.5", "--max-duration", "2h", "--process-idle-timeout", "30m",
        "--restart", "on-failure", "--tool-timeout", "30",
    )  # fmt: skip
    words = json.loads(answer(desk, made, "argv"))
    assert "--allowedTools=Bash(ls:*),Read" in words
    named = {name: words[words.index(name) + 1] for name in words if name.startswith("--") and "=" not in name}
    wanted = {"--model": "m-1", "--max-turns": "7", "--append-system-prompt": "Be brief.\nÄ", "--max-budget-usd": "5"}
    assert {name: named[name] for name in wanted} == wanted


def test_the_limits_reach_the_api_in_its_units(desk: ProcessDesk) -> None:
    many = ("--max-memory", "1", "--max-cpu", "0.01", "--max-duration", "59", "--process-idle-timeout", "58s")
    refused = attempt(desk, "--process", "claude", *many, "--quiet-after", "100").err
    fields = ("maxMemory", "maxCpu", "maxDuration", "idleTimeout", "quietAfter")
    assert [name for name in fields if f"process.{name}" not in refused] == []
    enough = ("--max-memory", "16MiB", "--max-cpu", "0.05", "--max-duration", "1m", "--process-idle-timeout", "1m")
    assert attempt(desk, *enough, "--", "cat").code == 0


def test_without_workdir_it_works_in_the_current_directory(desk: ProcessDesk) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "daemon", "session", "create", "--agent", "worker", "--json", "--", "sh", "-c", "pwd"],
        env=environment(desk.home, DAEMON_MASTER_PASSWORD=PASSWORD), cwd=desk.work, capture_output=True, check=True,
    )  # fmt: skip
    made = json.loads(done.stdout)["id"]
    desk.wait(made, "CLOSED")
    assert desk.cli("session", "output", made).out == f"{desk.work}\n"


def test_secrets_come_from_standard_input_files_and_this_shell_and_are_shown_nowhere(desk: ProcessDesk) -> None:
    file = desk.work.parent / "secrets.env"
    file.write_text(f"# of the project\n\nFROM_FILE={SECRET}\r\n  FROM_SHELL_TOO\nBOTH=file\nEMPTY=\n")
    made = create(
        desk, "--process", "claude", "--oauth-token-stdin", "--env-file", str(file), "--env", "FROM_SHELL",
        "--env", "BOTH=option=1", stdin=f"{TOKEN}\n", FROM_SHELL=SECRET, FROM_SHELL_TOO="two",
    )  # fmt: skip
    wanted = {
        "CLAUDE_CODE_OAUTH_TOKEN": TOKEN, "FROM_FILE": SECRET, "FROM_SHELL": SECRET, "FROM_SHELL_TOO": "two",
        "BOTH": "option=1", "EMPTY": "",
    }  # fmt: skip
    assert {name: answer(desk, made, f"env {name}") for name in wanted} == {
        name: fingerprint(value) for name, value in wanted.items()
    }
    assert SECRET not in quiet(desk.cli("session", "show", made, "--json")).out


def test_a_token_is_read_from_a_file_and_who_else_can_read_it_is_told(desk: ProcessDesk) -> None:
    file = desk.work.parent / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o644)
    ended = attempt(desk, "--process", "claude", "--oauth-token-file", str(file))
    assert f"chmod 600 {file}" in ended.err
    made = ended.json()["id"]
    desk.wait(made, "READY")
    assert answer(desk, made, "env CLAUDE_CODE_OAUTH_TOKEN") == fingerprint(TOKEN)


def test_at_a_terminal_the_token_is_asked_for_without_echo(desk: ProcessDesk) -> None:
    command = [sys.executable, "-m", "daemon", "session", "create", "--agent", "worker", "--process", "claude"]
    command += ["--workdir", str(desk.work), "--oauth-token-stdin", "--output", "token"]
    env = environment(desk.home, DAEMON_MASTER_PASSWORD=PASSWORD)
    code, screen = at_terminal(command, env, {"OAuth token:": TOKEN})
    assert (code, TOKEN in screen) == (0, False)


def test_the_whole_object_can_be_given_and_options_win_over_it(desk: ProcessDesk) -> None:
    whole = {
        "command": "claude", "workingDir": "/nonexistent", "model": "m-0", "maxTurns": 3, "oauthToken": TOKEN,
        "environment": {"A": "1", "B": "1"},
    }  # fmt: skip
    options = ("--process-json", "-", "--model", "m-1", "--env", "B=2")
    made = create(desk, *options, stdin=json.dumps(whole))
    words = json.loads(answer(desk, made, "argv"))
    assert (words[words.index("--model") + 1], words[words.index("--max-turns") + 1]) == ("m-1", "3")
    assert [answer(desk, made, f"env {name}") for name in "AB"] == [fingerprint("1"), fingerprint("2")]
    assert desk.show(create(desk, "--process-json", '{"command": ["cat"]}'))["process"]["command"] == ["cat"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        (["--process", "cat -u"], None, ["-- cat -u"]),
        (["--process", "claude", "--", "cat"], None, ["not both"]),
        (["--", "claude"], None, ["--process claude"]),
        (["--budget-usd", "5"], None, ["no process", "--process claude"]),
        (["--process", "claude", "--budget-usd", "nan"], None, ["such as 5 or 0.25"]),
        (["--process", "claude", "--max-memory", "much"], None, ["512m"]),
        (["--process", "claude", "--restart", "always"], None, ["on-failure"]),
        (["--process", "claude", "--env", "NOT_SET_ANYWHERE"], None, ["not set here"]),
        (["--process", "claude", "--env", "=x"], None, ["no variable"]),
        (["--process", "claude", "--env-file", "-"], f"A=1\n-----{SECRET}-----\n", ["line 2 of -"]),
        (["--process", "claude", "--env-file", "-"], f"{SECRET}\n".replace("-", "_"), ["line 1 of -"]),
        (["--process", "claude", "--env-file", "/nonexistent"], None, ["/nonexistent", "No such file"]),
        (["--process", "claude", "--system-prompt", "@/nonexistent"], None, ["system prompt", "No such file"]),
        (["--process", "claude", "--oauth-token-stdin", "--oauth-token-file", "x"], "", ["not both"]),
        (["--process-json", "-", "--oauth-token-stdin"], "{}", ["Standard input cannot be both"]),
        (["--process-json", f'{{"command": "claude", "oauthToken": "{TOKEN}"}}'], None, ["--oauth-token-file"]),
        (["--process-json", "-"], f'["{TOKEN}"]', ["no JSON object"]),
        (["--process-json", "-"], "[" * 5000, ["no JSON object"]),
        (["--process", "claude", "--system-prompt", "@-"], "x" * 100_001, ["larger than 100000 bytes"]),
    ],
)
def test_wrong_usage_is_told_in_one_line_without_a_daemon(
    tmp_path: Path, arguments: list[str], stdin: str | None, words: list[str]
) -> None:
    ended = quiet(cli(tmp_path, "session", "create", "--agent", "worker", *arguments, stdin=stdin))
    assert (ended.code, ended.err.count("\n"), ended.out) == (2, 1, ""), ended.err
    assert [word for word in words if word not in ended.err] == []
    assert SECRET.replace("-", "_") not in ended.err


def test_what_is_no_text_is_refused_in_one_line(desk: ProcessDesk) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "daemon", "session", "create", "--agent", "worker", "--", "cat", b"\xff"],
        env=environment(desk.home, DAEMON_MASTER_PASSWORD=PASSWORD), capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, b"error: What was given is not UTF-8\n")


def test_a_value_that_the_api_refuses_is_not_shown(desk: ProcessDesk) -> None:
    file = desk.work.parent / "long.env"
    file.write_text(f"LONG={SECRET * 2000}\nPATH={SECRET}\nODD={SECRET}\0\n")
    ended = attempt(desk, "--process", "claude", "--env-file", str(file), "--oauth-token-stdin", stdin=f"{TOKEN} x")
    assert ended.code == 1
    assert "process.environment" in ended.err
    assert "process.oauthToken" in ended.err


# --- ps, show, update, kill


def runs(process: psutil.Process) -> bool:
    """Return whether a process runs; one that nobody has waited for yet does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_ps_shows_what_runs_by_the_agent_s_name(desk: ProcessDesk) -> None:
    made = desk.begin("sh", "-c", "sleep 1000 & cat")
    wait_for(lambda: "sleep 1000 & cat" in desk.cli("ps").out)
    ended = desk.cli("ps")
    header = ["SESSION", "AGENT", "COMMAND", "PID", "PROCS", "RSS", "CPU", "STATE", "SINCE", "TURNS", "COST"]
    assert ended.out.splitlines()[0].split() == header
    row = next(line for line in ended.out.splitlines() if line.startswith(made))
    assert [part for part in ("worker", "sh -c 'sleep 1000 & cat'", "MiB", "READY", "$0.00") if part not in row] == []
    listed = next(one for one in desk.cli("ps", "--json").json() if one["sessionId"] == made)
    assert (listed["processes"], listed["pid"]) == (3, desk.show(made)["process"]["pid"])


def test_ps_prints_nothing_where_nothing_runs(tmp_path: Path) -> None:
    desk = ProcessDesk(tmp_path)
    try:
        assert [desk.cli("ps").out, desk.cli("ps", "--json").json()] == ["", []]
    finally:
        desk.stop()


def test_show_tells_of_the_process_what_it_cost_and_how_it_ended(desk: ProcessDesk) -> None:
    made = desk.begin()
    desk.tell(made, "cost 0.5")
    shown = desk.cli("session", "show", made).out
    pid = desk.show(made)["process"]["pid"]
    wanted = [["command", "claude"], ["pid", str(pid)], ["turns", "1"], ["cost", "$0.5000"]]
    rows = [line.split()[:2] for line in shown.splitlines()]
    assert [row for row in wanted if row not in rows] == []
    assert "110 (100 in, 10 out, 0 read from the cache" in shown
    desk.ask("POST", f"/v1/sessions/{made}/messages", {"content": "die"})
    desk.wait(made, "ERROR")
    assert "crashed, SIGKILL" in desk.cli("session", "show", made).out


def test_update_raises_a_budget_and_may_interrupt_for_it(desk: ProcessDesk) -> None:
    made = desk.begin(budget={"maxCostUsd": 0.02, "maxTokens": 100000})
    desk.ask("POST", f"/v1/sessions/{made}/messages", {"content": "cost 0.05"})
    desk.wait(made, "SUSPENDED")
    raised = desk.cli("session", "update", made, "--budget-usd", "1")
    assert (raised.code, "tokens" not in raised.err, "give both" in raised.err) == (0, True, True)
    assert desk.cli("session", "resume", made).code == 0
    desk.wait(made, "READY", "IDLE")
    assert answer(desk, made, "hello") == "You said: hello"
    desk.ask("POST", f"/v1/sessions/{made}/messages", {"content": "tool", "queue": True})
    desk.wait(made, "ACTIVE")
    busy = desk.cli("session", "update", made, "--budget-usd", "2", "--budget-tokens", "5000")
    assert (busy.code, "--force" in busy.err) == (1, True)
    forced = desk.cli("session", "update", made, "--budget-usd", "2", "--budget-tokens", "5000", "--force", "--json")
    assert (forced.json()["state"], forced.err) == ("IDLE", "")
    assert desk.cli("session", "update", made, "--process-json", '{"oauthToken": null}').code == 0
    assert desk.cli("session", "update", made).code == 2
    assert desk.cli("session", "update", made, "--budget-usd", "0").code == 1


def test_kill_ends_the_whole_tree_and_says_how_it_ended(desk: ProcessDesk) -> None:
    made = desk.begin("sh", "-c", "trap '' TERM; sleep 1000 & cat")
    pid = desk.show(made)["process"]["pid"]
    wait_for(lambda: len(psutil.Process(pid).children()) == 2)
    tree = [psutil.Process(pid), *psutil.Process(pid).children()]
    ended = desk.cli("session", "kill", made, "--reason", "enough")
    rows = [line.split() for line in ended.out.splitlines()]
    assert (ended.code, rows[1:]) == (0, [["state", "CLOSED"], ["signal", "SIGKILL"]])
    assert [one for one in tree if runs(one)] == []
    killed = next(
        one for one in desk.ask("GET", f"/v1/admin/audit?sessionId={made}") if one["type"] == "SESSION_KILLED"
    )
    assert killed["details"]["reason"] == "enough"
    again = desk.cli("session", "kill", made)
    assert (again.code, "INVALID_STATE_TRANSITION" in again.err) == (1, True)


@contextmanager
def stand_in(body: dict[str, Any]) -> Iterator[str]:
    """Answer every request with this, and yield the address."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_what_could_not_be_killed_is_told(tmp_path: Path) -> None:
    session = "01980e5a-7c00-7a2b-9c4d-5e6f708192a3"
    left = {"id": session, "state": "CLOSING", "exitCode": None, "signal": None, "processesLeft": 2}
    with stand_in(left) as url:
        for arguments in ([], ["--json"]):
            ended = cli(tmp_path, "--url", url, "session", "kill", session, *arguments)
            assert (ended.code, "2 of its processes could not be ended" in ended.err) == (1, True)
        assert json.loads(ended.out) == left
    switch = {"state": "ACTIVATED", "reason": "r", "activatedAt": 1, "processesKilled": 3, "processesLeft": 1}
    with stand_in(switch) as url:
        turned = cli(tmp_path, "--url", url, "kill-switch", "on")
        assert (turned.code, "3 processes killed" in turned.out, "1 processes could" in turned.err) == (0, True, True)
        rows = [line.split() for line in cli(tmp_path, "--url", url, "kill-switch", "status").out.splitlines()]
        assert rows[-2:] == [["processes", "killed", "3"], ["processes", "left", "1"]]


def test_the_kill_switch_tells_how_many_processes_it_has_killed(tmp_path: Path) -> None:
    desk = ProcessDesk(tmp_path)
    try:
        desk.begin("cat")
        assert ", 1 processes killed" in desk.cli("kill-switch", "on").out
        assert ["processes", "killed", "1"] in [
            line.split() for line in desk.cli("kill-switch", "status").out.splitlines()
        ]
    finally:
        desk.stop()


def test_processes_outlive_a_stop_and_a_restart_unless_they_are_to_be_killed(tmp_path: Path) -> None:
    desk = ProcessDesk(tmp_path)
    child = psutil.Process(desk.show(desk.begin("cat"))["process"]["pid"])
    try:
        assert desk.cli("stop").code == 0
        assert child.is_running()
        desk.process.communicate(timeout=30)
        desk.start()
        assert [one["pid"] for one in desk.cli("ps", "--json").json()] == [child.pid]
        assert desk.cli("restart", "--kill-processes").code == 0
        desk.process.communicate(timeout=30)
        assert not runs(child)
        assert desk.cli("ps", "--json").json() == []
    finally:
        assert desk.cli("stop", "--kill-processes").code == 0
        assert desk.cli("stop", "--kill-processes").code == 3
