"""A process is told from every later one that has its pid."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from daemon.supervision import identity
from daemon.supervision.identity import Identity, boot_id, identify, is_alive, send
from tests.supervision.session import Session, runs, state
from tests.support.daemon_process import wait_for

LAST_PID = Path("/proc/sys/kernel/ns_last_pid")

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture(params=["pidfd", "kill", "psutil"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the system lets us identify and signal."""
    if request.param != "pidfd":
        monkeypatch.delattr(os, "pidfd_open")
    if request.param == "psutil":
        monkeypatch.setattr(identity, "PROCFS", False)
    return str(request.param)


def _identity(process: subprocess.Popen[bytes]) -> Identity:
    found = identify(process.pid)
    assert found is not None
    return found


@pytest.mark.usefixtures("way")
def test_a_process_lives_until_it_ends(start: Start) -> None:
    process = start()
    one = _identity(process)
    assert one == _identity(process)
    assert is_alive(one)
    assert send(one, signal.SIGKILL)
    wait_for(lambda: state(process.pid) == "Z", 5)
    assert not is_alive(one)
    assert identify(process.pid) is None
    assert not send(one, signal.SIGTERM)
    process.wait()
    assert not is_alive(one)
    assert not send(one, signal.SIGTERM)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("change", [{"started": "1"}, {"boot": "another"}])
def test_another_process_of_the_pid_is_not_signalled(start: Start, change: dict[str, str]) -> None:
    process = start()
    other = msgspec.structs.replace(_identity(process), **change)
    assert not is_alive(other)
    assert not send(other, signal.SIGKILL)
    assert runs(process.pid)


def test_what_is_no_pid_is_nobody() -> None:
    for pid in (0, -1, -os.getpid(), 2**31 - 1):
        assert identify(pid) is None
        assert not send(Identity(pid, "1", boot_id()), signal.SIGKILL)


def test_a_name_does_not_pass_for_a_state(start: Start, tmp_path: Path) -> None:
    program = tmp_path / "a) Z 1 (b"
    shutil.copy("/bin/sleep", program)
    process = start(str(program), "60")
    wait_for(lambda: program.name in Path(f"/proc/{process.pid}/comm").read_text(), 5)
    assert is_alive(_identity(process))


def test_a_process_lives_while_one_of_its_threads_does(sessions: Callable[..., Session]) -> None:
    session = sessions()
    session.start("headless")
    one = session.identity("sleep")
    wait_for(lambda: state(one.pid) == "Z", 5)
    assert is_alive(one)
    assert send(one, signal.SIGKILL)
    wait_for(lambda: not is_alive(one), 5)


@pytest.mark.skipif(not os.access(LAST_PID, os.W_OK) or os.geteuid() != 0, reason="the next pid cannot be chosen")
def test_a_recycled_pid_is_not_signalled(start: Start) -> None:
    first = start()
    old = _identity(first)
    first.kill()
    first.wait()

    def recycled() -> subprocess.Popen[bytes] | None:
        LAST_PID.write_text(str(old.pid - 1))
        process = start()  # whoever else forks just now may take the pid
        return process if process.pid == old.pid else None

    wait_for(lambda: _ticks() > int(old.started) + 1, 5)  # no process is recycled within a hundredth of a second
    second = wait_for(recycled, 5)
    assert not is_alive(old)
    assert not send(old, signal.SIGKILL)
    assert runs(second.pid)


def _ticks() -> int:
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def test_a_boot_has_a_name_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(boot_id()) == 36
    monkeypatch.setattr(identity, "PROCFS", False)
    assert boot_id.__wrapped__()
