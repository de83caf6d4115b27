"""Plain connections to a SQLite file, a checked copy of it, and what its errors mean to the owner."""

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Literal

from daemon import files

BUSY_TIMEOUT = 60
"""Seconds: another process that migrates the same database may be copying a large one."""

_REASONS = {
    sqlite3.SQLITE_AUTH: "a migration may not control transactions or attach databases",
    sqlite3.SQLITE_BUSY: "another process holds the database; stop it and try again",
    sqlite3.SQLITE_CANTOPEN: "the database cannot be opened; its directory must exist, be yours and not read-only",
    sqlite3.SQLITE_CORRUPT: "the database is damaged; restore a backup",
    sqlite3.SQLITE_FULL: "the disk is full; free some space and try again",
    sqlite3.SQLITE_IOERR: "the disk failed to read or write; check it",
    sqlite3.SQLITE_NOTADB: "the file is not a SQLite database; move it away or restore a backup",
    sqlite3.SQLITE_READONLY: "the database is read-only; check the permissions of the file and its directory",
}


class DamagedError(sqlite3.DatabaseError):
    """The pages of a database contradict each other."""


def result_code(error: Exception) -> int:
    """Return the primary result code of an error (sqlite.org/rescode.html); 0 where it is not SQLite's."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def reason(error: Exception) -> str:
    """Return what went wrong and, where it is known, what helps."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return _REASONS.get(result_code(error), str(error))


def connect(database: Path, mode: Literal["ro", "rw"], *, one_thread: bool = True) -> sqlite3.Connection:
    """Open an existing file in autocommit mode.

    Args:
        database: the file.
        mode: `ro` never writes to it, not even when it is closed.
        one_thread: whether other threads than this one are refused; who lets them in lets one at a time work.
    """
    uri = f"{database.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=one_thread)


def connect_traceless(database: Path) -> sqlite3.Connection:
    """Open an existing file for reading alone and leave no trace beside it.

    A read-only connection makes `-wal` and `-shm` files where there are none, unless it is told that nobody writes.
    Where there are some, somebody may: then it reads them like everyone else.
    """
    if any(Path(f"{database}{suffix}").exists() for suffix in ("-wal", "-journal")):
        return connect(database, "ro")
    uri = f"{database.absolute().as_uri()}?mode=ro&immutable=1"
    return sqlite3.connect(uri, uri=True, isolation_level=None)


_SHARED_FIRST, _SHARED_SIZE = 0x4000_0002, 510
"""The bytes that whoever reads or has a write-ahead log open keeps locked (sqlite.org/fileformat2.html, 1.2)."""


def is_open_elsewhere(path: Path) -> bool:
    """Return whether another process has a database open; this one has no connection to it, or it would lose its locks.

    Raises:
        OSError: it cannot be opened.
    """
    if not os.access(path, os.W_OK):  # then no daemon of ours can work with it
        return False
    with path.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, _SHARED_SIZE, _SHARED_FIRST)
        except (BlockingIOError, PermissionError):
            return True
    return False


def create(path: Path) -> None:
    """Create an empty file with mode 0600 unless there is one."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL.

    While another process opens the file SQLite refuses that at once, whatever the busy timeout.

    Raises:
        sqlite3.Error: it stayed refused, or the file system cannot do it.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            break
        except sqlite3.OperationalError as error:
            if result_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)
    if mode != "wal":
        raise sqlite3.OperationalError("its file system does not support SQLite's WAL; use a local disk")


def check_pages(connection: sqlite3.Connection) -> None:
    """Run SQLite's own check.

    Raises:
        DamagedError: with its first finding.
    """
    (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if finding != "ok":
        raise DamagedError(f"the database is damaged ({' '.join(finding.split())}); restore a backup")


def staging(database: Path) -> Path:
    """Return where the successor of a database is made ready: on the same disk, so that it can take its name."""
    place = database.resolve()
    return place.with_name(f"{place.name}.restoring")


def copy(
    database: Path,
    directory: Path,
    stem: str,
    check: Callable[[sqlite3.Connection], None] = check_pages,
) -> Path:
    """Copy a live database to an unused name that begins with `stem`; the name appears once the copy is whole.

    The copy is one snapshot, read in one step: writers neither wait for it nor make it begin again. It is a single
    file without WAL, so that it can be read wherever it is carried. The caller keeps other processes from copying to
    the same directory at the same time.

    Args:
        database: the source.
        directory: created with mode 0700 where it is missing.
        stem: of the new file, which has mode 0600.
        check: raises if the copy may not be kept.

    Raises:
        DamagedError: the copy, and so the database, fails SQLite's check.
        OSError, sqlite3.Error: the copy could not be made.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _copying, files.partial(directory / database.stem) as made:
        with closing(connect_traceless(database)) as source, closing(connect(made, "rw")) as finished:
            fill(source, finished)
            check(finished)
        return publish(made, directory, stem)


_copying = threading.Lock()
"""A second backup waits for the first, in its own thread."""

_naming = threading.Lock()


def publish(made: Path, directory: Path, stem: str) -> Path:
    """Give a finished file an unused name that begins with `stem`, and return it."""
    with _naming:
        target = files.unused(directory, stem, ".db")
        files.publish(made, target)
    return target


def fill(source: sqlite3.Connection, made: sqlite3.Connection) -> None:
    """Copy a database into an empty one, which needs no WAL to be read."""
    source.backup(made)
    made.execute("PRAGMA journal_mode = DELETE")
