"""Scopes where systemd makes none, or is odd; that a real one makes them is shown in `tests/installation`."""

import asyncio
import contextlib
import os
import time
from pathlib import Path

import pytest

from daemon.supervision import cgroup, scope
from tests.support.daemon_process import wait_for
from tests.support.supervised import is_alive

MAKES = 'echo "$$ $*" >"$RECORD"; while [ "$1" != -- ]; do shift; done; shift; exec "$@"'
HANGS = 'echo "$$ $*" >"$RECORD"; exec sleep 60'


class StandIn:
    """A `systemd-run` of the test's own.

    Args:
        place: receives it.
        script: what it does; `$RECORD` is where it notes its pid and its arguments.
    """

    def __init__(self, place: Path, script: str) -> None:
        self.record = place / "record"
        program = place / "systemd-run"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        self.environment = {"PATH": f"{place}:{os.environ['PATH']}", "RECORD": str(self.record)}
        self.failures: list[str] = []

    def opened(self) -> contextlib.AbstractAsyncContextManager[Path | None]:
        return scope.opened("a-session", 3, self.environment, self.failures.append, processes=77)

    @property
    def pid(self) -> int:
        return int(self.record.read_text().split()[0])


async def test_a_scope_is_kept_until_it_is_entered_and_nothing_of_ours_stays_in_it(tmp_path: Path) -> None:
    systemd = StandIn(tmp_path, MAKES)
    own = next((line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")), "")
    async with systemd.opened() as place:
        assert place == cgroup.directory(own)
        assert is_alive(systemd.pid)
    assert not is_alive(systemd.pid)
    for word in ("--user", "--scope", "--unit=agent-session-a-session-3.scope", "--property=Delegate=yes"):
        assert word in systemd.record.read_text().split()
    assert "--property=TasksMax=77" in systemd.record.read_text()


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (
            "echo 'Failed to connect to bus: No medium found\nmore' >&2; exit 1",
            "Failed to connect to bus: No medium found",
        ),
        ("exit 3", "systemd-run ended"),
        ("echo '0::/nowhere/at/all'; cat", "its control group is not to be seen"),
        ("echo '1:name=systemd:/x'", "systemd-run ended"),
    ],
)
async def test_without_a_scope_it_is_told_why(tmp_path: Path, script: str, why: str) -> None:
    systemd = StandIn(tmp_path, script)
    async with systemd.opened() as place:
        assert place is None
    assert systemd.failures == [why]


async def test_without_systemd_run_it_is_told_so(tmp_path: Path) -> None:
    systemd = StandIn(tmp_path, "exit 0")
    systemd.environment["PATH"] = "/nowhere"
    async with systemd.opened() as place:
        assert place is None
    assert systemd.failures == ["systemd-run: No such file or directory"]


async def test_a_systemd_that_does_not_answer_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scope, "_SECONDS", 0.2)
    systemd = StandIn(tmp_path, HANGS)
    began = time.monotonic()
    async with systemd.opened() as place:
        assert place is None
    assert time.monotonic() - began < 10
    assert systemd.failures == ["systemd did not answer within 0.2 s"]
    assert not is_alive(systemd.pid)


async def test_a_start_that_is_given_up_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scope, "_SECONDS", 0.5)
    systemd = StandIn(tmp_path, HANGS)

    async def start() -> None:
        async with systemd.opened():
            pass

    starting = asyncio.create_task(start())
    while not (systemd.record.exists() and systemd.record.read_text()):
        await asyncio.sleep(0.01)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert starting.cancelled()
    wait_for(lambda: not is_alive(systemd.pid))
