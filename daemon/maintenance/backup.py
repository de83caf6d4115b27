"""Backups of a home whose daemon does not run, and copies of backups."""

import asyncio
import time
from pathlib import Path

from daemon import files
from daemon.domain.clock import stamp
from daemon.domain.views import Backup
from daemon.engines import database_path, require_asyncpg
from daemon.home import Home
from daemon.maintenance.exclusive import Refused, held, named
from daemon.settings import Config
from daemon.stores.migrate import accepted_version
from daemon.stores.sqlite.backup import back_up
from daemon.stores.terms import BackupFile


def destination(asked: Path) -> Path:
    """Return the directory, or the file that is not there yet, that a copy shall go to.

    Raises:
        Refused: a file has that name, or its directory is missing.
    """
    path = asked.expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise Refused(f"{path} exists already", "choose another name; nothing is overwritten")
    if not path.exists() and not path.parent.is_dir():
        raise Refused(f"There is no directory {path.parent}", "make it, or choose another place")
    return path


def deliver(made: Backup, to: Path) -> Backup:
    """Copy a backup to a directory, or to a file that is not there yet; the one in the home stays.

    Raises:
        Refused: it could not be copied, or is not the file that was announced.
    """
    source = Path(made.path)
    target = to / source.name if to.is_dir() else to
    with named(target):
        try:
            files.copy_new(source, target)
        except FileExistsError:
            raise Refused(f"{target} exists already", "choose another name; nothing is overwritten") from None
    return Backup(path=str(target), size_bytes=made.size_bytes, sha256=files.sha256(target))


def make(home: Home, config: Config) -> Backup:
    """Make a checked copy in the home's `backups` while no daemon runs; it is the same file that the API makes.

    The database is left as it is, without an event: opening it to write one would migrate it.

    Raises:
        Refused: it cannot be made.
        AlreadyRunning: a daemon has the home.
        HomeError: the home cannot be used.
    """
    stem = f"daemon-{stamp(int(time.time()))}"
    if config.database.kind == "postgresql":
        return _view(_saved(home, config.database.url, stem))
    database = database_path(home, config)
    with held(home), named(database):
        if not database.exists() or accepted_version(database) == 0:
            raise Refused(f"There is no database at {database}", "run: daemon init")
        return _view(back_up(database, home.backups, stem))


def _view(made: BackupFile) -> Backup:
    return Backup(path=str(made.path), size_bytes=made.size_bytes, sha256=made.sha256)


def _saved(home: Home, url: str, stem: str) -> BackupFile:
    """Write a SQLite file with what PostgreSQL holds; daemons of other homes may go on."""
    with held(home), named(home.backups):
        require_asyncpg()
        # Imported here: what nobody uses need not be installed.
        from daemon.maintenance.postgres_place import save  # noqa: PLC0415

        return asyncio.run(save(url, home.backups, stem))
