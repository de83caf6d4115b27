"""Many workers on one token file, answers that get lost and a daemon that dies: nobody is stranded."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from daemon.client.claims import claims
from tests.client import worker
from tests.support.cutter import Cutter
from tests.support.daemon_process import REPOSITORY, untraced
from tests.support.engines import ask
from tests.support.live import PASSWORD
from tests.support.shared_time import SharedTime
from tests.support.timed_daemon import TimedDaemon

RENEWALS = 200
THREADS, PROCESSES = 16, 4
TTL = 300
KILLED, STOPPED = 25, 120
"""Renewals in the middle of which the daemon is killed, and restarted in good order."""


@pytest.fixture
def clock(tmp_path: Path) -> Iterator[SharedTime]:
    time = SharedTime(tmp_path / "time")
    yield time
    time.tell(worker.ROUND, worker.GIVEN_UP)  # also where the test has failed


@pytest.fixture
def daemon(tmp_path: Path, clock: SharedTime) -> Iterator[TimedDaemon]:
    started = TimedDaemon(tmp_path / "home", tmp_path / "time")
    yield started
    started.stop()


@pytest.fixture
def way(tmp_path: Path, daemon: TimedDaemon) -> Iterator[Cutter]:
    cutter = Cutter(daemon.socket, tmp_path / "way.sock")
    yield cutter
    cutter.close()


def owner(daemon: TimedDaemon) -> httpx.Client:
    transport = httpx.HTTPTransport(uds=str(daemon.socket), verify=False)
    return httpx.Client(transport=transport, base_url="http://localhost", headers={"X-Master-Password": PASSWORD})


def program(*arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.client.worker", *map(str, arguments)]
    return subprocess.Popen(command, env=untraced(), cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


def test_200_renewals_by_16_threads_and_4_processes_strand_nobody(
    tmp_path: Path, clock: SharedTime, daemon: TimedDaemon, way: Cutter
) -> None:
    made = new_session(daemon)
    file = tmp_path / "token"
    file.touch(mode=0o600)
    file.write_text(f"{made['token']}\n")
    way.drop = lambda request: random.random() < (0.5 if b"/renew " in request else 0.01)
    shared = worker.session(file, way.path, clock)
    sessions = [shared] * (THREADS // 2) + [worker.session(file, way.path, clock) for _ in range(THREADS // 2)]
    kinds = ["work", "work", "async", "async"]
    programs = [program(kind, file, way.path, tmp_path / "time", THREADS + 1 + n) for n, kind in enumerate(kinds)]
    reader = program("read", file, "-", tmp_path / "time", 0)
    with ThreadPoolExecutor(THREADS) as pool:
        ends = [pool.submit(worker.work, known, clock, 1 + n) for n, known in enumerate(sessions)]
        try:
            all_are_through(clock, 1)
            for renewal in range(1, RENEWALS + 1):
                clock.advance(0.66 * TTL)
                clock.tell(worker.ROUND, renewal + 1)
                if renewal == KILLED:
                    daemon.kill9()
                    allow_renewals(tmp_path / "home" / "daemon.db", made["id"])
                    daemon.start()
                if renewal == STOPPED:
                    daemon.stop()
                    daemon.start()
                all_are_through(clock, renewal + 1)
                worker.until(lambda renewal=renewal: generation(file) == renewal + 1)
            revoke(daemon, made["id"])
            clock.tell(worker.ROUND, worker.OVER)
            assert {end.result(20) for end in ends} == {"SessionEnded SESSION_REVOKED"}
        finally:
            clock.tell(worker.ROUND, worker.GIVEN_UP)
    assert {end.communicate(timeout=20)[0] for end in programs} == {"SessionEnded SESSION_REVOKED\n"}
    for known in sessions:
        known.close()
    found = json.loads(reader.communicate(timeout=20)[0])
    assert (found["torn"], found["back"]) == (0, 0)
    assert found["reads"] > 1000
    assert way.dropped > RENEWALS / 4


def all_are_through(clock: SharedTime, number: int) -> None:
    """Wait until every worker has used the session in this round."""
    clock.tell(worker.ROUND, number)
    worker.until(lambda: all(clock.told(who) == number for who in range(1, THREADS + PROCESSES + 1)))


def generation(file: Path) -> int:
    """Return the generation of the token in the file."""
    return claims(file.read_text().strip(), "the file").gen


def revoke(daemon: TimedDaemon, session_id: str) -> None:
    """Revoke the session, which has had each renewal once."""
    with owner(daemon) as asking:
        own = asking.get(f"/v1/sessions/{session_id}").json()
        assert (own["renewalCount"], own["generation"], own["status"]) == (RENEWALS, RENEWALS + 1, "ACTIVE")
        asking.delete(f"/v1/sessions/{session_id}").raise_for_status()


def new_session(daemon: TimedDaemon) -> dict[str, Any]:
    with owner(daemon) as asking:
        agent = asking.post("/v1/agents", json={"name": "worker"}).json()["id"]
        made: dict[str, Any] = asking.post("/v1/sessions", json={"agentId": agent, "ttl": TTL}).json()
        return made


def allow_renewals(database: Path, session_id: str) -> None:
    """Give a session more renewals than an owner can give it, past the daemon, which is down."""
    ask(database, "UPDATE sessions SET max_renewals = ? WHERE id = ?", RENEWALS, session_id)
