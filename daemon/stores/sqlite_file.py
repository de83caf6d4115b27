"""Plain connections to a SQLite file, a checked copy of it, and what its errors mean to the owner."""

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Literal

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


def connect(database: Path, mode: Literal["ro", "rw"]) -> sqlite3.Connection:
    """Open an existing file in autocommit mode; `ro` never writes to it, not even when it is closed."""
    uri = f"{database.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None)


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


def copy(database: Path, directory: Path, stem: str) -> Path:
    """Copy a live database to an unused name that begins with `stem`; the name appears once the copy is whole.

    The caller keeps others from copying the same database at the same time.

    Args:
        database: the source.
        directory: created with mode 0700 where it is missing.
        stem: of the new file, which has mode 0600.

    Raises:
        DamagedError: the copy, and so the database, fails SQLite's check.
        OSError, sqlite3.Error: the copy could not be made.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = directory / f"{database.stem}.partial"
    try:
        partial.unlink(missing_ok=True)
        create(partial)
        _fill(database, partial)
        target = _unused(directory, stem)
        partial.replace(target)
        _sync(directory)
    finally:
        partial.unlink(missing_ok=True)
    return target


def _fill(database: Path, partial: Path) -> None:
    with closing(connect(database, "ro")) as source, closing(connect(partial, "rw")) as target:
        source.backup(target)
        (finding,) = target.execute("PRAGMA quick_check(1)").fetchone()
    if finding != "ok":
        raise DamagedError(f"the database is damaged ({finding}); restore a backup")


def _unused(directory: Path, stem: str) -> Path:
    candidate, number = directory / f"{stem}.db", 1
    while candidate.exists():
        number += 1
        candidate = directory / f"{stem}-{number}.db"
    return candidate


def _sync(directory: Path) -> None:
    """Make a new name in the directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
