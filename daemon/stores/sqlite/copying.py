"""Every row of a SQLite file, in and out."""

import sqlite3
from collections.abc import Iterator, Sequence

from daemon.domain.views import ChainHead
from daemon.stores.sqlite import events
from daemon.stores.tables import TABLES, Advance, Row, Summing, Sums, Table

BATCH = 500
"""Rows that are held in memory at a time."""

# What the event after, or itself, says of an event: its hash, archived or not.
_HASH_OF = "SELECT hash FROM audit_log WHERE id = :seq UNION ALL SELECT prev_hash FROM audit_log WHERE id = :seq + 1"


def batches(raw: sqlite3.Connection, table: Table) -> Iterator[list[Row]]:
    """Yield the rows of a table in the order of its key."""
    columns, key = ", ".join(table.columns), ", ".join(table.key)
    cursor = raw.execute(f"SELECT {columns} FROM {table.name} ORDER BY {key}")  # noqa: S608 (static text)
    try:
        while rows := cursor.fetchmany(BATCH):
            yield rows
    finally:
        cursor.close()


def insert(raw: sqlite3.Connection, table: Table, rows: Sequence[Row]) -> None:
    """Insert rows of a table."""
    marks = ", ".join("?" * len(table.columns))
    columns = ", ".join(table.columns)
    raw.executemany(f"INSERT INTO {table.name} ({columns}) VALUES ({marks})", rows)  # noqa: S608 (static text)


def sums(raw: sqlite3.Connection, advance: Advance) -> Sums:
    """Return what the database holds; the caller's transaction makes it one moment."""
    summing = Summing()
    for table in TABLES:
        for rows in batches(raw, table):
            summing.take(table, rows)
            advance(len(rows))
        summing.end(table)
    return summing.done()


def count(raw: sqlite3.Connection) -> int:
    """Return how many rows there are in all tables together; older versions lack some."""
    present = {name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    names = [table.name for table in TABLES if table.name in present]
    return sum(raw.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names)  # noqa: S608 (static text)


def head(raw: sqlite3.Connection) -> ChainHead:
    """Return the newest event's sequence number and hash."""
    return events.head(raw)


def hash_of(raw: sqlite3.Connection, seq: int) -> str | None:
    """Return the hash of an event, of the newest archived one too; None where it is not known."""
    row = raw.execute(_HASH_OF, {"seq": seq}).fetchone()
    return str(row[0]) if row else None
