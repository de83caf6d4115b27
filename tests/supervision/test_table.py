"""The process table, and what environments say of whose a process is."""

import os
import subprocess
from collections import Counter
from collections.abc import Callable

import pytest

from daemon.supervision import table
from daemon.supervision.table import MARK, snapshot
from daemon.supervision.tree import members
from tests.supervision.session import Session
from tests.support.daemon_process import wait_for

Sessions = Callable[..., Session]
Start = Callable[..., subprocess.Popen[bytes]]


def test_we_are_in_it() -> None:
    found = snapshot()
    us = found.entries[os.getpid()]
    assert (us.pid, us.ppid, us.session) == (os.getpid(), os.getppid(), os.getsid(0))
    assert us.is_alive
    assert not us.is_stopped
    assert 10_000_000 < us.rss_bytes < 4_000_000_000
    assert us.cpu_seconds == pytest.approx(sum(os.times()[:4]), abs=0.5)
    assert found.holds(us.identity)
    assert os.getpid() in found.below({os.getppid()}, set())
    assert os.getpid() not in found.below({os.getppid()}, {os.getpid()})


def test_a_mark_is_found_wherever_it_is(start: Start) -> None:
    many = {f"V{number}": "x" * 1000 for number in range(1000)}
    process = start(env={**many, MARK: "session", f"{MARK}_NOT": "another", "LATE": f"{MARK}=third"})
    wait_for(lambda: snapshot().mark(process.pid) == "session", 5)


def test_a_program_that_is_run_later_has_its_own_mark(start: Start) -> None:
    script = f"read line; exec env {MARK}=session sleep 60"
    process = start("sh", "-c", script, env={"PATH": os.environ["PATH"]}, stdin=subprocess.PIPE)
    assert snapshot().mark(process.pid) is None
    assert process.stdin is not None
    process.stdin.write(b"go\n")
    process.stdin.flush()
    wait_for(lambda: snapshot().mark(process.pid) == "session", 5)


def test_an_environment_is_read_once_and_only_of_strangers(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    session, other = sessions(), sessions()
    tree = session.start("generations")
    other.start("generations")
    session.wait("sleep")
    [stranger] = other.wait("sleep")
    read: Counter[int] = Counter()
    environment = table._Read.environment

    def counted(entry: table._Read) -> bytes:
        read[entry.pid] += 1
        return environment(entry)

    monkeypatch.setattr(table._Read, "environment", counted)
    for _ in range(3):
        own = {one.pid for one in members([tree])[session.id]}
    assert read[stranger] == 1
    assert not own & read.keys()


def test_nothing_is_remembered_of_who_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_marks", {})
    gone = {-number: (("1",), None) for number in range(1, 100_000)}
    table._marks.update(gone)
    snapshot()
    assert not table._marks


def test_a_dead_process_has_no_mark(start: Start) -> None:
    process = start("true", env={MARK: "session", "PATH": os.environ["PATH"]})
    wait_for(lambda: not snapshot().entries[process.pid].is_alive, 5)
    assert snapshot().mark(process.pid) is None
