"""Processes outlive a daemon that is killed again and again, and nothing outlives the kill switch.

Shortened unless `--campaign` asks for the whole of it.
"""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.daemon_process import PASSWORD, DaemonProcess, wait_for
from tests.support.supervised import is_alive, marked

COUNTER = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"
FAMILY = """
import os, signal, subprocess, sys, time
count = int(sys.argv[1])
signal.alarm(300)
def descend(kind):
    pid = os.fork()
    if pid:
        if kind == "double":
            os.waitpid(pid, 0)
        return pid
    signal.alarm(300)
    if kind == "setsid":
        os.setsid()
    if kind == "double":
        if os.fork():
            os._exit(0)
        os.setsid()
    if kind == "stubborn":
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
    if kind == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    if kind == "parent":
        descend("plain")
    while True:
        time.sleep(1)
kinds = ["parent", "setsid", "double", "stubborn", "stopped", "plain"]
made = 0
for number in range(count):
    if made >= count:
        break
    kind = kinds[number % len(kinds)]
    descend(kind)
    made += 2 if kind == "parent" else 1
print("there", flush=True)
while True:
    time.sleep(1)
"""
"""A program with as many descendants as it is told: children, grandchildren, in sessions of their own, adopted by init,
deaf to SIGTERM, and stopped."""


class World:
    """A daemon in a process of its own, and sessions that it runs.

    Args:
        root: where everything lies.
        most: processes that may run.
    """

    def __init__(self, root: Path, most: int) -> None:
        self.root = root
        settings = {
            "DAEMON_PROCESSES_WORKSPACE_ROOTS": json.dumps([str(root)]),
            "DAEMON_PROCESSES_MAX_PROCESSES": str(most),
            "DAEMON_PROCESSES_MAX_PER_AGENT": str(most),
            "DAEMON_SECURITY_MAX_SESSIONS_PER_AGENT": str(most),
            "COVERAGE_PROCESS_CONFIG": None,
        }
        self.daemon = DaemonProcess(root / "home", **settings)  # type: ignore[arg-type]
        self.agent = self.owner().post("/v1/agents", json={"name": "campaign"}).json()["id"]
        self.sessions: list[str] = []

    def owner(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.daemon.url, headers={"X-Master-Password": PASSWORD}, timeout=60, trust_env=False
        )

    def begin(self, command: list[str], **process: Any) -> str:
        asked = {"command": command, "workingDir": str(self.root), **process}
        made = self.owner().post("/v1/sessions", json={"agentId": self.agent, "process": asked})
        self.sessions.append(made.raise_for_status().json()["id"])
        return self.sessions[-1]

    def show(self, session: str) -> dict[str, Any]:
        shown: dict[str, Any] = self.owner().get(f"/v1/sessions/{session}").raise_for_status().json()
        return shown

    def wait(self, session: str, state: str) -> None:
        wait_for(lambda: self.show(session)["state"] == state, 60)

    def output(self, session: str) -> bytes:
        """Return everything that a session's process has written."""
        found, owner = b"", self.owner()
        while True:
            query = {"follow": "false", "offset": len(found)}
            more = owner.get(f"/v1/sessions/{session}/output", params=query).raise_for_status()
            assert int(more.headers["X-Next-Offset"]) == len(found) + len(more.content)
            if not more.content:
                return found
            found += more.content

    def left(self) -> list[int]:
        """Return everything that still runs for any session."""
        return [pid for session in self.sessions for pid in marked(session)]

    def close(self) -> None:
        self.daemon.stop()
        for pid in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, 200)
    yield made
    made.close()


class Reader:
    """Follows a session's output across restarts of the daemon, by the last offset that it saw."""

    def __init__(self, world: World, session: str) -> None:
        self._world = world
        self._session = session
        self.last = 0
        self.lines: list[str] = []

    def read_until(self, count: int) -> None:
        """Read on over a stream of its own until there are so many lines."""
        target = f"/v1/sessions/{self._session}/output"
        headers = {"Last-Event-ID": str(self.last)} if self.last else {}
        with self._world.owner().stream("GET", target, headers=headers) as answer:
            assert answer.status_code == 200
            seen = self.last
            for line in answer.iter_lines():
                if line.startswith("id: "):
                    seen = int(line[4:])
                elif line.startswith("data: "):
                    self.lines.append(line[6:])
                    self.last = seen
                    if len(self.lines) >= count:
                        return


@pytest.mark.timeout(600)
def test_no_line_is_lost_or_repeated_and_no_child_dies_of_it_when_the_daemon_is_killed(
    world: World, campaign: bool
) -> None:
    children, kills = (20, 20) if campaign else (5, 4)
    sessions = [world.begin(["sh", "-c", COUNTER]) for _ in range(children)]
    for session in sessions:
        world.wait(session, "READY")
    pids = {session: world.show(session)["process"]["pid"] for session in sessions}
    readers = [Reader(world, session) for session in sessions[:3]]
    for kill in range(1, kills + 1):
        for reader in readers:
            reader.read_until(kill * 20)
        world.daemon.kill9()
        assert all(map(is_alive, pids.values())), "a child died with the daemon"
        world.daemon.start()
        for session, pid in pids.items():
            shown = world.show(session)
            assert (shown["state"], shown["process"]["pid"]) == ("READY", pid)
    for reader in readers:
        assert reader.lines == [str(number) for number in range(1, len(reader.lines) + 1)]
    for session in sessions:
        whole = world.output(session).decode().splitlines()
        assert whole == [str(number) for number in range(1, len(whole) + 1)]
        assert len(whole) > kills * 20
        kinds = [event["details"] for event in events(world, session, "SESSION_STATE_CHANGED")]
        assert [one["to"] for one in kinds] == ["INITIALIZING", "READY"], "a restart of the daemon is no step"


def events(world: World, session: str, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        world.owner().get("/v1/admin/audit", params={"sessionId": session, "type": kind, "limit": 200}).json()
    )
    return found


def test_a_child_that_dies_while_the_daemon_is_stopped_is_error_with_its_code(world: World, tmp_path: Path) -> None:
    go = tmp_path / "go"
    session = world.begin(["sh", "-c", f"while [ ! -e {go} ]; do sleep 0.02; done; echo last; exit 3"])
    world.wait(session, "READY")
    world.daemon.stop()
    go.touch()
    wait_for(lambda: not marked(session))
    world.daemon.start()
    shown = world.show(session)
    assert (shown["state"], shown["process"]["exitCode"], shown["process"]["pid"]) == ("ERROR", 3, None)
    assert world.output(session) == b"last\n"
    (event,) = events(world, session, "SESSION_ERROR")
    assert event["details"]["exitCode"] == 3


def test_a_recycled_pid_is_not_mistaken_for_the_child(world: World) -> None:
    session = world.begin(["sleep", "300"])
    world.wait(session, "READY")
    world.daemon.stop()
    for pid in marked(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not marked(session))
    # What has the pid now is this test itself: of another start, though of the same boot.
    rewrite_wrapper(world, session, os.getpid())
    world.daemon.start()
    shown = world.show(session)
    assert (shown["state"], shown["process"]["pid"], shown["process"]["reason"]) == ("ERROR", None, "lost")
    answer = world.owner().post(f"/v1/sessions/{session}/kill").raise_for_status()
    assert answer.json()["state"] == "CLOSED"
    assert is_alive(os.getpid())


def rewrite_wrapper(world: World, session: str, pid: int) -> None:
    """Store another pid as that of a session's wrapper, in its row and in its file."""
    import sqlite3

    with contextlib.closing(sqlite3.connect(world.daemon.home / "daemon.db")) as database, database:
        database.execute("UPDATE processes SET wrapper_pid = ?, pid = ? WHERE session_id = ?", (pid, pid, session))
    (world.daemon.home / "processes" / session / "wrapper").write_text(f"1 {pid}\n")


@pytest.mark.timeout(600)
def test_nothing_is_left_five_seconds_after_the_kill_switch_and_nothing_comes_back(
    world: World, campaign: bool, tmp_path: Path
) -> None:
    count, descendants, restarts = (50, 20, 10) if campaign else (6, 20, 2)
    program = tmp_path / "family.py"
    program.write_text(FAMILY)
    python = ["python3", "-S", str(program), str(descendants)]
    sessions = [world.begin(python, restart="on-failure") for _ in range(count)]
    for session in sessions:
        world.wait(session, "READY")
        wait_for(lambda session=session: world.output(session) == b"there\n", 60)
    running = len(world.left())
    assert running >= count * (descendants + 1)
    began = time.monotonic()
    answer = world.owner().post("/v1/admin/kill-switch", json={"reason": "campaign"}).raise_for_status().json()
    took = time.monotonic() - began
    assert world.left() == []
    assert answer["processesLeft"] == 0
    assert answer["processesKilled"] >= count * (descendants + 1)
    assert took < 5
    for session in sessions:
        shown = world.show(session)
        assert (shown["state"], shown["process"]["pid"], shown["process"]["reason"]) == ("CLOSED", None, "kill_switch")
        assert len(events(world, session, "SESSION_CLOSED")) == 1
    for _ in range(restarts):
        world.daemon.kill9()
        world.daemon.start()
        assert world.left() == []
    print(f"{running} processes of {count} sessions ended in {took:.2f} s")


def test_the_kill_switch_with_the_daemon_down_kills_what_is_recorded(world: World) -> None:
    session = world.begin(["sh", "-c", "trap '' TERM; setsid sleep 300 & sleep 300"])
    world.wait(session, "READY")
    world.daemon.kill9()
    assert marked(session)
    done = world.daemon.cli("kill-switch", "on", "--reason", "down", "--json")
    assert done.code == 0, done.err
    assert done.json()["processesLeft"] == 0
    assert marked(session) == []
    world.daemon.start()
    shown = world.show(session)
    assert (shown["state"], shown["process"]["reason"]) == ("CLOSED", "kill_switch")


def test_a_daemon_that_is_told_so_kills_processes_when_it_stops(tmp_path: Path) -> None:
    world = World(tmp_path, 10)
    try:
        session = world.begin(["sh", "-c", "setsid sleep 300 & sleep 300"])
        world.wait(session, "READY")
        world.daemon.process.send_signal(signal.SIGUSR1)
        world.daemon.process.communicate(timeout=30)
        assert marked(session) == []
        world.daemon.start()
        shown = world.show(session)
        assert (shown["state"], shown["status"], shown["revokedReason"]) == ("CLOSED", "REVOKED", "shutdown")
    finally:
        world.close()


def test_processes_go_on_when_the_daemon_stops(world: World) -> None:
    session = world.begin(["sh", "-c", COUNTER])
    world.wait(session, "READY")
    pid = world.show(session)["process"]["pid"]
    world.daemon.stop()
    size = (world.daemon.home / "processes" / session / "stdout").stat().st_size
    wait_for(lambda: (world.daemon.home / "processes" / session / "stdout").stat().st_size > size)
    world.daemon.start()
    assert world.show(session)["process"]["pid"] == pid
