"""A daemon for each module, and agents with a token file and an open session of each test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from daemon.client.effects import Credential
from daemon.client.finding import locator
from tests.support import agents
from tests.support.agents import Agent, Driven, of_file, token_file
from tests.support.cutter import Cutter
from tests.support.live import LiveDaemon

SETTINGS = {"DAEMON_SECURITY_MAX_SESSIONS_PER_AGENT": "100"}

OpenAgent = Callable[..., Agent]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveDaemon]:
    """A daemon for the module."""
    daemon = LiveDaemon(tmp_path_factory.mktemp("daemon") / "home", **SETTINGS)
    yield daemon
    daemon.stop()


@pytest.fixture
def made(live: LiveDaemon) -> dict[str, Any]:
    """A session of a new agent, as the owner was told of it."""
    return live.new_session(ttl=1000)


@pytest.fixture
def file(tmp_path: Path, made: dict[str, Any]) -> Path:
    """Its token file."""
    return token_file(tmp_path, made["token"])


@pytest.fixture
def way(live: LiveDaemon, tmp_path: Path) -> Iterator[Cutter]:
    """A way to the daemon on which answers can get lost."""
    cutter = Cutter(live.home.socket_path, tmp_path / "way.sock")
    yield cutter
    cutter.close()


@pytest.fixture(params=[agents.in_threads, agents.in_loop], ids=["threads", "asyncio"])
def open_agent(request: pytest.FixtureRequest, live: LiveDaemon, file: Path) -> Iterator[OpenAgent]:
    """Open agents of either kind: `open_agent(credential=None, socket=None, timeout=10.0)`."""
    with ExitStack() as stack:

        def opened(known: Credential | None = None, socket: Path | None = None, timeout: float = 10.0) -> Agent:
            locate = locator(None, socket or live.home.socket_path, None, {})
            manager = request.param(known or of_file(file), locate, agents.in_time_of(live), timeout)
            agent: Agent = stack.enter_context(manager)
            return agent

        yield opened


@pytest.fixture
def agent(open_agent: OpenAgent) -> Agent:
    """An agent with the token file, once with threads and once with asyncio."""
    return open_agent()


@pytest.fixture
def driven(live: LiveDaemon, file: Path) -> Iterator[Driven]:
    """The core with the token file, in simulated time."""
    made = Driven(live, of_file(file))
    yield made
    made.close()
