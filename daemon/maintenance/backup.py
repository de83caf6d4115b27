"""Backups of a home whose daemon does not run, and copies of backups."""

import time
from pathlib import Path

from daemon import files
from daemon.domain.clock import stamp
from daemon.domain.views import Backup
from daemon.home import Home
from daemon.maintenance.exclusive import Refused, held, named
from daemon.stores.migrate import accepted_version
from daemon.stores.sqlite.backup import back_up


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


def make(home: Home, database: Path) -> Backup:
    """Make a checked copy in the home's `backups` while no daemon runs; it is the same file that the API makes.

    The database is left as it is, without an event: opening it to write one would migrate it.

    Raises:
        Refused: it cannot be made.
        AlreadyRunning: a daemon has the home.
        HomeError: the home cannot be used.
    """
    with held(home), named(database):
        if not database.exists() or accepted_version(database) == 0:
            raise Refused(f"There is no database at {database}", "run: daemon init")
        made = back_up(database, home.backups, f"daemon-{stamp(int(time.time()))}")
    return Backup(path=str(made.path), size_bytes=made.size_bytes, sha256=made.sha256)
