"""A daemon for each module, with real processes, and the sessions of each test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import scripted_claude
from tests.support.live import QUICK, FakeTime, LiveDaemon
from tests.support.owner import WEBHOOK_SECRET, add, webhook
from tests.support.services.webhook import FakeWebhook
from tests.support.supervised import Desk

MANY = {
    "DAEMON_PROCESSES_MAX_PROCESSES": "200",
    "DAEMON_PROCESSES_MAX_PER_AGENT": "200",
    "DAEMON_SECURITY_MAX_SESSIONS_PER_AGENT": "200",
}


@pytest.fixture(scope="module")
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveDaemon]:
    """A daemon for the module, with its `SETTINGS`, `ENVIRON` and `GRACE`; `claude` is the scripted one."""
    base = tmp_path_factory.mktemp("daemon")
    programs = scripted_claude.install(base / "bin").parent
    settings = {"DAEMON_PROCESSES_WORKSPACE_ROOTS": f'["{tmp_path_factory.getbasetemp()}"]'}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        for name, value in getattr(request.module, "ENVIRON", {}).items():
            patch.setenv(name, value)
        patch.setattr("tests.support.live.QUICK", getattr(request.module, "GRACE", QUICK))
        daemon = LiveDaemon(base / "home", **{**MANY, **settings, **getattr(request.module, "SETTINGS", {})})
        yield daemon
        daemon.stop()


@pytest.fixture
def time(live: LiveDaemon) -> FakeTime:
    """The daemon's time."""
    return live.time


@pytest.fixture
def desk(live: LiveDaemon, tmp_path: Path) -> Iterator[Desk]:
    """Sessions of the test, which are ended after it."""
    made = Desk(live, tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def hook(live: LiveDaemon) -> Iterator[FakeWebhook]:
    """The owner's webhook, at which everything arrives that the daemon tells."""
    with FakeWebhook(WEBHOOK_SECRET, lambda: live.time.wall) as fake:
        add(live, webhook(fake))
        yield fake
