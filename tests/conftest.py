"""Fixtures that every test may use."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.web.open_stream import StreamLimits
from tests.support import postgres
from tests.support.daemon_process import CHEAP as PROCESS_SETTINGS
from tests.support.engines import Databases, drop_kept
from tests.support.live import CHEAP, FakeTime, LiveDaemon
from tests.support.redis import shared


def pytest_addoption(parser: pytest.Parser) -> None:
    """Long campaigns run shortened unless asked for whole."""
    parser.addoption("--campaign", action="store_true", help="run crash rounds, fuzzing and load tests whole")


def pytest_configure(config: pytest.Config) -> None:
    """Tell what is decided at import about the option, and the marks."""
    config.addinivalue_line("markers", "both_engines: runs on SQLite and on PostgreSQL")
    config.addinivalue_line("markers", "one_engine: runs on SQLite alone")
    config.addinivalue_line("markers", "one_place: runs on SQLite alone, with conversations there too")
    if config.getoption("--campaign"):
        os.environ["SESSION_CAMPAIGN"] = "1"
    # Else each of some hundred processes compiles the program for itself.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run on both engines what asks for it, and with conversations in Redis what asks where they are."""
    marked = metafunc.definition.get_closest_marker
    names = metafunc.fixturenames
    if "kept_in" in names and marked("one_place"):
        metafunc.parametrize("kept_in", ["engine"], indirect=True)
    elif "kept_in" in names and "engine" in names and not marked("one_engine"):
        places = [("sqlite", "engine"), ("postgresql", "engine"), ("postgresql", "redis")]
        metafunc.parametrize(("engine", "kept_in"), places, indirect=True)
    elif "kept_in" in names:
        metafunc.parametrize("kept_in", ["engine", "redis"], indirect=True)
    elif "engine" in names and marked("both_engines") and not marked("one_engine"):
        metafunc.parametrize("engine", ["sqlite", "postgresql"], indirect=True)


def pytest_unconfigure() -> None:
    """Remove what the process made outside of temporary directories."""
    drop_kept()
    postgres.drop_template()


@pytest.fixture
def campaign(request: pytest.FixtureRequest) -> bool:
    """Whether long campaigns run whole."""
    return bool(request.config.getoption("--campaign"))


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio."""
    return "asyncio"


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Iterator[Databases]:
    """Where the test's daemons have their rows."""
    databases = Databases(getattr(request, "param", "sqlite"))
    yield databases
    databases.close()


@pytest.fixture
def launch(tmp_path: Path, engine: Databases) -> Iterator[Callable[..., LiveDaemon]]:
    """Start daemons that are stopped after the test; arguments as of `LiveDaemon`."""
    started: list[LiveDaemon] = []

    def start(
        root: Path | None = None, time: FakeTime | None = None, streams: StreamLimits | None = None, **env: str
    ) -> LiveDaemon:
        home = root or tmp_path / f"home{len(started)}"
        started.append(LiveDaemon(home, time, streams, **engine.settings(home), **env))
        return started[-1]

    yield start
    for live in started:
        live.stop()


@pytest.fixture
def live(launch: Callable[..., LiveDaemon]) -> LiveDaemon:
    """A daemon with default settings, but for cheap hashing."""
    return launch()


@pytest.fixture
def database_url() -> Iterator[str]:
    """Address of a migrated PostgreSQL database of the test's own."""
    with postgres.fresh_database() as url:
        yield url


@pytest.fixture
def empty_database_url() -> Iterator[str]:
    """Address of an empty PostgreSQL database of the test's own."""
    with postgres.fresh_database(migrated=False) as url:
        yield url


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[postgres.Cluster]:
    """A PostgreSQL server of the module's own, which may be stopped; a test leaves it running."""
    with postgres.own_cluster() as cluster:
        yield cluster


@pytest.fixture
def kept_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where every daemon of the test keeps its conversations."""
    with contextlib.ExitStack() as stack:
        settings = stack.enter_context(shared()) if request.param == "redis" else {}
        for common in (CHEAP, PROCESS_SETTINGS):
            for name, value in settings.items():
                monkeypatch.setitem(common, name, value)
        yield request.param
