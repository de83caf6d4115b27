"""`daemon run`: a session for as long as a command runs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import Start
from tests.support.daemon_process import PASSWORD, REPOSITORY, DaemonProcess, cli, environment, wait_for
from tests.support.shared_time import SharedTime
from tests.support.timed_daemon import TimedDaemon


def test_run_hands_out_a_token_file_strips_the_passwords_and_ends_the_session_at_the_end(start: Start) -> None:
    daemon = start()
    script = (
        "import json,os,stat\n"
        "file = os.environ['DAEMON_TOKEN_FILE']\n"
        "modes = [stat.S_IMODE(os.stat(path).st_mode) for path in (file, os.path.dirname(file))]\n"
        "print(json.dumps({'environ': dict(os.environ), 'token': open(file).read(), 'modes': modes}))\n"
        "raise SystemExit(7)"
    )
    withheld = {"DAEMON_DATABASE_URL": "postgresql://me:secret@db/rows", "DAEMON_SESSION_TOKEN": "of another session"}
    withheld["DAEMON_VERIFIER_CREDENTIAL"] = "wai_verf_x"
    ended = daemon.cli("run", "--agent", "worker", "--create", "--", sys.executable, "-c", script, **withheld)
    assert ended.code == 7
    child, token, modes = ended.json()["environ"], ended.json()["token"], ended.json()["modes"]
    assert token.startswith("wai_sess_")
    assert modes == [0o600, 0o700]
    assert not any(token.strip() in value for value in child.values())
    assert not {"DAEMON_MASTER_PASSWORD", "DAEMON_OWNER_TICKET", *withheld} & child.keys()
    shown = daemon.cli("session", "show", child["DAEMON_SESSION_ID"], "--json").json()
    assert (shown["status"], shown["createdBy"]) == ("REVOKED", "run")
    assert not Path(child["DAEMON_TOKEN_FILE"]).parent.exists()
    assert PASSWORD not in Path(daemon.ready["logFile"]).read_text()


RUN = """
import sys, time
from pathlib import Path
from tests.support.shared_time import SharedTime
clock = SharedTime(Path(sys.argv.pop(1)))
time.time = clock.wall
from daemon.client import renewal
renewal.LONGEST_PAUSE = 0.05  # the test's time jumps
from daemon.__main__ import main
main()
"""


def test_run_renews_for_its_command_which_finds_each_new_token_in_the_file(tmp_path: Path) -> None:
    clock = SharedTime(tmp_path / "time")
    daemon = TimedDaemon(tmp_path / "home", tmp_path / "time")
    script = (
        "import os, time, urllib.request as web\n"
        "read = lambda: open(os.environ['DAEMON_TOKEN_FILE']).read().strip()\n"
        "for _ in range(3):\n"
        "    token = read()\n"
        "    print('has one', flush=True)\n"
        "    while read() == token: time.sleep(0.01)\n"
        "    asked = web.Request(os.environ['DAEMON_URL'] + '/v1/session')\n"
        "    asked.add_header('Authorization', 'Bearer ' + read())\n"
        "    print(web.urlopen(asked).status, flush=True)\n"
    )
    options = ["run", "--agent", "w", "--create", "--ttl", "300", "--", sys.executable, "-c", script]
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path / "time"), *options],
        env=environment(tmp_path / "home", DAEMON_MASTER_PASSWORD=PASSWORD, no_proxy="*"),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline() == "has one\n"
            clock.advance(0.66 * 300)
            assert process.stdout.readline() == "200\n"
        assert process.wait(20) == 0
    finally:
        process.kill()
        daemon.stop()


def test_run_needs_no_password_to_end_the_session_when_the_ticket_is_over(start: Start, tmp_path: Path) -> None:
    daemon = start()
    ticket = daemon.cli("login").out.partition("=")[2].strip().rstrip(";")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [sys.executable, "-m", "daemon", "run", "--agent", "w", "--create", "--", "cat", str(pipe)],
        env=environment(daemon.home, DAEMON_OWNER_TICKET=ticket),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with pipe.open("w"):  # opens when the command reads
        assert daemon.cli("logout").code == 0
    said = process.communicate(timeout=20)[1]
    assert (process.returncode, said) == (0, b"")
    (row,) = daemon.cli("session", "list", "--all", "--json").json()
    assert row["status"] == "REVOKED"


@pytest.mark.parametrize(("command", "code"), [(["/nonexistent/tool"], 127), (["/etc/hostname"], 126)])
def test_run_fails_as_a_shell_does(start: Start, command: list[str], code: int) -> None:
    assert start().cli("run", "--agent", "w", "--create", "--", *command).code == code


def test_run_passes_on_the_signal_and_128_plus_its_number(start: Start) -> None:
    daemon = start()
    process = subprocess.Popen(
        [sys.executable, "-m", "daemon", "run", "--agent", "w", "--create", "--", "sleep", "60"],
        env=environment(daemon.home, DAEMON_MASTER_PASSWORD=PASSWORD),
        start_new_session=True,
    )

    def children() -> str:
        return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()

    wait_for(children)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    statuses = {row["status"] for row in daemon.cli("session", "list", "--all", "--json").json()}
    assert statuses <= {"REVOKED"}


def test_a_run_revokes_and_removes_what_a_killed_run_left_behind(start: Start, tmp_path: Path) -> None:
    daemon, places = start(), {"TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": None}
    process = subprocess.Popen(
        [sys.executable, "-m", "daemon", "run", "--agent", "w", "--create", "--", "sleep", "60"],
        env=environment(daemon.home, DAEMON_MASTER_PASSWORD=PASSWORD, **places),
        start_new_session=True,
    )
    wait_for(lambda: Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)
    (left,) = _active(daemon)
    directory = tmp_path / f"agent-daemon-run-{left}"
    assert (directory / "token").exists()
    assert daemon.cli("run", "--agent", "w", "--", "true", **places).code == 0
    assert _active(daemon) == []
    assert not directory.exists()


def _active(daemon: DaemonProcess) -> list[str]:
    headers = {"X-Master-Password": PASSWORD}
    answer = httpx.get(f"{daemon.url}/v1/owner/sessions?status=ACTIVE", headers=headers, trust_env=False)
    return [row["id"] for row in answer.json()]


def test_run_without_a_daemon_fails_with_125(home: Path) -> None:
    assert cli(home, "run", "--agent", "w", "--", "true").code == 125
