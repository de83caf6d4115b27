"""A home, and real daemons in it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemon_process import DaemonProcess, cli

Start = Callable[..., DaemonProcess]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "home"
    yield root
    cli(root, "stop", "--force", "--timeout", "5")


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    started: list[DaemonProcess] = []

    def begin(**env: str | None) -> DaemonProcess:
        started.append(DaemonProcess(home, **env))
        return started[-1]

    yield begin
    for daemon in started:
        if daemon.process.returncode is None:
            daemon.kill9()
