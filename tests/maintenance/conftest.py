"""A home with a history and a backup of its middle, made once and copied for each test."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from daemon.home import Home
from tests.support.live import FakeTime, LiveDaemon


class Past(NamedTuple):
    """A home whose daemon does not run.

    Args:
        root: the home.
        backup: a backup of it, with the agent `early` and a session.
        session: that session's answer, with its token.
        crashed: the home as `kill -9` left it, with the agent `late`, its last changes in the write-ahead log alone.
    """

    root: Path
    backup: Path
    session: dict[str, str]
    crashed: Path

    @property
    def home(self) -> Home:
        """The home's paths."""
        return Home.resolve(self.root, {})


@pytest.fixture(scope="session")
def _past(tmp_path_factory: pytest.TempPathFactory) -> Past:
    place = tmp_path_factory.mktemp("past")
    live = LiveDaemon(place / "home", FakeTime(1_750_000_000))
    try:
        session = live.new_session(live.new_agent("early"))
        live.call(lambda daemon: daemon.parts.services.audit.verify())
        live.time.advance(100)
        backup = Path(live.owner.post("/v1/admin/backup").raise_for_status().json()["path"])
        live.time.advance(100)
        live.new_session(live.new_agent("late"))
        crashed = place / "crashed"
        shutil.copytree(live.root, crashed, ignore=shutil.ignore_patterns("*.sock", "*-shm", "backups"))
        (crashed / "backups").mkdir(mode=0o700)
    finally:
        live.stop()
    return Past(live.root, Path(shutil.move(backup, place)), session, crashed)


@pytest.fixture
def past(_past: Past, tmp_path: Path) -> Past:
    """The home, as a copy of the test's own."""
    return _past._replace(
        root=Path(shutil.copytree(_past.root, tmp_path / "home")),
        backup=Path(shutil.copy(_past.backup, tmp_path / "backup.db")),
        crashed=Path(shutil.copytree(_past.crashed, tmp_path / "crashed")),
    )
