"""Commands that the desk does not meet every day: secrets, logs, configuration, completion."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.cli.client import Client
from daemon.cli.connection import Address
from tests.support.daemon_process import DaemonProcess, cli, environment, wait_for


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    started = DaemonProcess(tmp_path_factory.mktemp("commands") / "home")
    yield started
    started.stop()


def test_init_makes_a_home_and_is_idempotent(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = cli(home, "init", "--password-stdin", stdin="a password from a pipe\n", DAEMON_MASTER_PASSWORD=None)
    assert first.code == 0
    assert (home / "config.toml").stat().st_mode & 0o777 == 0o600
    before = (home / "daemon.db").read_bytes()
    again = cli(home, "init", DAEMON_MASTER_PASSWORD=None)
    assert (again.code, (home / "daemon.db").read_bytes()) == (0, before)
    assert cli(home, "start", "--detach", DAEMON_MASTER_PASSWORD="a password from a pipe").code == 0
    assert cli(home, "stop").code == 0


def test_init_without_a_password_and_a_terminal_says_what_to_set(tmp_path: Path) -> None:
    ended = cli(tmp_path / "home", "init", DAEMON_MASTER_PASSWORD=None)
    assert ended.code == 2
    assert "DAEMON_MASTER_PASSWORD" in ended.err


def test_the_secret_is_rotated_and_not_twice_in_a_row(daemon: DaemonProcess) -> None:
    token = daemon.cli("agent", "add", "s", "--session", "--json").json()["session"]["token"]
    assert daemon.cli("secret", "rotate", "--json").json()["previousExpiresAt"] > 0
    again = daemon.cli("secret", "rotate")
    assert again.code == 1
    assert "ROTATION_TOO_RECENT" in again.err
    assert token not in again.out + again.err


def test_the_password_is_changed_and_the_old_one_refused(tmp_path: Path) -> None:
    started = DaemonProcess(tmp_path / "home")
    try:
        new = "a wholly new password"
        assert started.cli("password", "change", "--new-password-stdin", stdin=f"{new}\n").code == 0
        assert started.cli("agent", "list").code == 4
        assert started.cli("agent", "list", DAEMON_MASTER_PASSWORD=new).code == 0
    finally:
        started.stop()


def test_session_commands_work_by_id(daemon: DaemonProcess) -> None:
    agent = daemon.cli("agent", "add", "worker", "--json").json()["id"]
    made = daemon.cli("session", "create", "--agent", "worker", "--ttl", "1h", "--output", "json").json()
    lines = daemon.cli("session", "create", "--agent", agent, "--output", "env").out
    assert "export DAEMON_SESSION_TOKEN=" in lines
    assert daemon.cli("session", "create", "--agent", agent, "--output", "token").out.startswith("wai_sess_")
    for command, state in (("suspend", "SUSPENDED"), ("resume", "READY")):
        assert daemon.cli("session", command, made["id"], "--json").json()["state"] == state
    assert daemon.cli("session", "rotate", made["id"], "--json").json()["token"] != made["token"]
    assert daemon.cli("session", "extend", made["id"], "2h", "--json").json()["expiresAt"] > made["expiresAt"]
    assert daemon.cli("session", "revoke", made["id"], "--json").json()["status"] == "REVOKED"
    assert daemon.cli("session", "show", made["id"], "--json").json()["revokedReason"] == "manual_revoke"
    assert daemon.cli("session", "show", "01980e5a-7c00-7a2b-9c4d-5e6f708192a3").code == 1


def test_agents_are_suspended_activated_and_removed_by_name(daemon: DaemonProcess) -> None:
    daemon.cli("agent", "add", "shortlived")
    assert daemon.cli("agent", "suspend", "shortlived", "--json").json()["status"] == "SUSPENDED"
    assert daemon.cli("agent", "activate", "shortlived", "--json").json()["status"] == "ACTIVE"
    assert daemon.cli("agent", "remove", "shortlived", "--yes", "--json").json()["status"] == "TERMINATED"


def test_logs_are_filtered_across_rotation_whether_the_daemon_runs_or_not(tmp_path: Path) -> None:
    home = tmp_path / "home"
    started = DaemonProcess(home)
    started.cli("agent", "add", "a", "--session")
    log = Path(started.ready["logFile"])
    wait_for(lambda: '"session.created"' in log.read_text())
    started.stop()
    log.rename(log.with_name("daemon.log.1"))
    restarted = DaemonProcess(home)
    restarted.stop()
    events = [json.loads(line)["event"] for line in cli(home, "logs", "--json", "-n", "500").out.splitlines()]
    assert events.count("daemon.ready") == 2
    only = cli(home, "logs", "--event", "session", "--json").out.splitlines()
    assert [json.loads(line)["event"] for line in only] == ["session.created"]
    assert cli(home, "logs", "--level", "error").out == ""


def test_logs_follow_what_is_written(daemon: DaemonProcess) -> None:
    following = subprocess.Popen(
        [sys.executable, "-m", "daemon", "logs", "-f", "-n", "0", "--event", "agent.created", "--json"],
        env=environment(daemon.home), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert following.stdout is not None
        daemon.cli("agent", "add", "before the follower may have begun")
        daemon.cli("agent", "add", "followed")
        assert json.loads(following.stdout.readline())["event"] == "agent.created"
    finally:
        following.kill()
        following.communicate()


def test_config_tells_each_value_and_where_it_came_from(daemon: DaemonProcess) -> None:
    shown = daemon.cli("config", "show", "--json").json()
    assert shown["server.port"] == {"value": 0, "origin": "DAEMON_SERVER_PORT"}
    assert shown["security.session_ttl"] == {"value": 86400, "origin": "default"}
    assert daemon.cli("config", "path").out.strip() == str(daemon.home / "config.toml")
    assert daemon.cli("config", "check").code == 0
    wrong = daemon.cli("config", "check", DAEMON_SERVER_PORT="7", DAEMON_LOG_LEVEL="loud")
    assert wrong.code == 2
    assert wrong.err.count("error: ") == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(daemon: DaemonProcess, shell: str) -> None:
    assert "_DAEMON_COMPLETE" in daemon.cli("completion", shell).out


def test_a_stop_that_takes_too_long_exits_6_and_force_kills(tmp_path: Path) -> None:
    started = DaemonProcess(tmp_path / "home")
    port = int(started.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(b"POST /v1/agents HTTP/1.1\r\nHost: localhost:%d\r\nContent-Length: 10\r\n\r\n{" % port)
        wait_for(lambda: True)
        ended = started.cli("stop", "--timeout", "0")
        assert ended.code in {0, 6}
        assert started.cli("stop", "--timeout", "0", "--force").code in {0, 3}
    started.process.communicate(timeout=30)


def test_a_session_with_constraints_is_shown_suspended_resumed_and_in_nobody_s_way(daemon: DaemonProcess) -> None:
    agent = daemon.cli("agent", "add", "bounded", "--json").json()["id"]
    rules = '{"maxRenewals": 3}'
    made = daemon.cli("session", "create", "--agent", agent, "--constraints", rules, "--output", "json").json()
    for command in ("show", "suspend", "resume"):
        shown = daemon.cli("session", command, made["id"])
        assert shown.code == 0, shown.err
        assert '"maxRenewals":3' in shown.out
    assert daemon.cli("run", "--agent", "bounded", "--", "true").code == 0


def test_a_refusal_that_comes_before_the_body_is_sent_is_told_as_what_it_is(daemon: DaemonProcess) -> None:
    client = Client(Address(daemon.url, daemon.ready["socket"]))
    body = {"name": "x" * 1_000_000}
    answer = client.send("POST", "/v1/agents", body, {"X-Master-Password": "a wrong password"})
    assert (answer.status, json.loads(answer.body)["code"]) == (401, "INVALID_MASTER_PASSWORD")
