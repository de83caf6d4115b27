"""Fixtures of supervision: sessions with real processes."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.supervision import cgroup
from tests.supervision.session import Session, close


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[Callable[..., Session]]:
    """Make sessions, without a control group unless asked; whatever they started is ended after the test."""
    made: list[Session] = []

    def make(*, grouped: bool = False) -> Session:
        made.append(Session(tmp_path, grouped=grouped))
        return made[-1]

    yield make
    close(made)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start programs, as `Popen` does, that are killed after the test."""
    with contextlib.ExitStack() as stack:

        def begin(*command: str, **options: Any) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(command or ("sleep", "60"), **options)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield begin


@pytest.fixture(params=[False, True], ids=["no group", "group"])
def grouped(request: pytest.FixtureRequest) -> bool:
    """Whether the session has a control group; skipped where there can be none."""
    if request.param:
        probe = cgroup.make("probe-of-the-tests")
        if probe is None:
            pytest.skip("no cgroup v2 that we may write")
        probe.remove()
    return bool(request.param)
