"""Checked copies of a SQLite database."""

from pathlib import Path

from daemon import files
from daemon.domain.errors import STORAGE_UNAVAILABLE, DaemonError
from daemon.stores import sqlite_file
from daemon.stores.inspection import check_whole
from daemon.stores.sqlite.connection import RETRY_AFTER
from daemon.stores.terms import BackupFile


def back_up(database: Path, directory: Path, stem: str) -> BackupFile:
    """Write a copy whose pages and audit log are whole, whether a daemon runs or not.

    Raises:
        OSError, sqlite3.Error: it could not be made; nothing of it is left.
    """
    made = sqlite_file.copy(database, directory, stem, check_whole)
    return BackupFile(made, made.stat().st_size, files.sha256(made))


def refusal(cause: Exception) -> DaemonError:
    """Return STORAGE_UNAVAILABLE for what kept a copy from being made."""
    return DaemonError(
        STORAGE_UNAVAILABLE,
        f"The backup could not be made: {sqlite_file.reason(cause)}.",
        hint="Nothing was changed. Free disk space or mend the database (see `daemon doctor`), then try again.",
        retry_after=RETRY_AFTER,
    )
