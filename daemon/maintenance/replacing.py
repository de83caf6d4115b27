"""One database file in the place of another, so that at every moment one of them is there, whole."""

import contextlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from daemon import files
from daemon.maintenance.exclusive import Refused, named
from daemon.stores import sqlite_file

_FOLD_MILLISECONDS = 2_000
"""How long another program may go on with the database that is replaced."""


@contextlib.contextmanager
def staged(database: Path) -> Iterator[Path]:
    """Yield an empty file beside a database, to be made its successor; what is left of it goes at the end."""
    staging = sqlite_file.staging(database)
    with named(staging):
        files.discard(staging)
        sqlite_file.create(staging)
    try:
        yield staging
    finally:
        files.discard(staging)


def copy_as_it_is(database: Path, to: Path) -> None:
    """Copy a database that nobody writes to, byte by byte.

    Raises:
        OSError: the disk is in the way.
    """
    for suffix in ("", "-wal"):  # there is a write-ahead log where the daemon was killed
        if Path(f"{database}{suffix}").exists():
            files.copy_new(Path(f"{database}{suffix}"), Path(f"{to}{suffix}"))


def fold(database: Path) -> None:
    """Make one file of a database and its write-ahead log: frames left behind would be read into its successor.

    Raises:
        Refused: another program has it open.
    """
    with closing(sqlite_file.connect(database, "rw")) as connection:
        connection.execute(f"PRAGMA busy_timeout = {_FOLD_MILLISECONDS}")
        try:
            connection.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.OperationalError as error:
            if sqlite_file.result_code(error) != sqlite3.SQLITE_BUSY:
                raise
            raise Refused(f"{database}: another program has it open", "close it, and try again") from None


def put_in_place(staging: Path, database: Path) -> None:
    """Give the successor its name; nothing of the old one's write-ahead log may be there by then."""
    fold(staging)
    files.sync(staging)
    for suffix in ("-wal", "-shm"):
        Path(f"{database}{suffix}").unlink(missing_ok=True)
    files.sync(database.parent)
    staging.replace(database)
    files.sync(database.parent)
