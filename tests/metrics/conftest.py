"""A daemon with metrics for each module."""

from collections.abc import Iterator

import pytest

from tests.support.live import LiveDaemon
from tests.support.scrape import ON


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveDaemon]:
    """A daemon for the tests that only look at differences."""
    live = LiveDaemon(tmp_path_factory.mktemp("metrics") / "home", **ON)
    yield live
    live.stop()
