"""Looks at a SQLite database that change nothing: is it whole, and what does it say?"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from daemon.domain import chain
from daemon.domain.views import ChainHead, Verification
from daemon.stores import sqlite_file
from daemon.stores.sqlite import events, values


@contextmanager
def look(database: Path) -> Iterator[sqlite3.Connection]:
    """Open a database for reading alone, without a trace beside it.

    Raises:
        sqlite3.Error: it cannot be opened or read.
    """
    with closing(sqlite_file.connect_traceless(database)) as connection:
        yield connection


def verify_chain(connection: sqlite3.Connection) -> Verification:
    """Recompute the hash chain of the audit log."""
    return chain.verify(events.all_rows(connection))


def check_whole(connection: sqlite3.Connection) -> None:
    """Prove that pages and audit log are whole.

    Raises:
        DamagedError: they are not.
    """
    sqlite_file.check_pages(connection)
    found = verify_chain(connection)
    if not found.valid:
        raise sqlite_file.DamagedError(f"the audit log is broken at event {found.first_bad}; restore a backup")


def orphan(connection: sqlite3.Connection) -> str | None:
    """Return the first row that refers to one that does not exist, in words; None where all is well."""
    row = connection.execute("PRAGMA foreign_key_check").fetchone()
    return f"row {row[1]} of {row[0]} refers to a row of {row[2]} that does not exist" if row else None


def hash_of(connection: sqlite3.Connection, seq: int) -> str | None:
    """Return the hash of one event."""
    row = connection.execute("SELECT hash FROM audit_log WHERE id = ?", (seq,)).fetchone()
    return str(row[0]) if row else None


def head(connection: sqlite3.Connection) -> ChainHead:
    """Return the newest event's sequence number and hash."""
    return events.head(connection)


def newest_time(connection: sqlite3.Connection) -> int:
    """Return the newest event's time (Unix seconds), 0 if there is none."""
    return events.newest_timestamp(connection)


def value(connection: sqlite3.Connection, key: str) -> str | None:
    """Return a value of the key-value store."""
    return values.get(connection, key)
