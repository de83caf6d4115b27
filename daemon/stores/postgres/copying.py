"""Every row of a PostgreSQL database, into a SQLite file and back."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg

from daemon.domain.chain import GENESIS
from daemon.domain.views import ChainHead
from daemon.stores import sqlite_file
from daemon.stores.migrate import migrate
from daemon.stores.postgres.connection import DAEMON, Connection
from daemon.stores.sqlite import copying as sqlite_rows
from daemon.stores.sqlite.copying import BATCH
from daemon.stores.tables import TABLES, Advance, Row, Summing, Sums, Table

STATEMENT_SECONDS = 600.0
"""A server that hangs for so long is given up; no other statement of a copy takes as long."""

_COPY_SECONDS = 86_400.0
"""One COPY is one statement, however many rows it has."""

_NAMES = ", ".join(table.name for table in TABLES)

# Nobody else reads or writes until the transaction is over: a daemon that starts meanwhile cannot.
_LOCK = f"LOCK TABLE audit_head, {_NAMES} IN ACCESS EXCLUSIVE MODE"

# The guard against emptying the log, lifted inside the transaction alone.
_UNGUARD = "ALTER TABLE audit_log DISABLE TRIGGER audit_log_refuses_truncate"
_EMPTY = f"TRUNCATE {_NAMES}"
_GUARD = "ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_refuses_truncate"

# The newest event, as the daemons will go on from it.
_SET_HEAD = "UPDATE audit_head SET id = $1, hash = $2"
_HEAD = "SELECT id, hash FROM audit_head"

# The next message gets a number after the last.
_SET_IDENTITY = (
    "SELECT setval(pg_get_serial_sequence('notification_outbox', 'id'), coalesce(max(id), 1), max(id) IS NOT NULL)"
    " FROM notification_outbox"
)

# What the event after, or itself, says of an event: its hash, archived or not.
_HASH_OF = "SELECT hash FROM audit_log WHERE id = $1 UNION ALL SELECT prev_hash FROM audit_log WHERE id = $1 + 1"

# Where daemons that work with this database run.
_DAEMONS = (
    "SELECT DISTINCT coalesce(host(client_addr), 'local') FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = $1"
)

# The same for two connections if they see the same tables.
_IDENTITY = (
    "SELECT pg_postmaster_start_time()::text, (SELECT oid FROM pg_database WHERE datname = current_database()),"
    " current_schema()"
)


class UnfitError(Exception):
    """A row that PostgreSQL cannot hold; names table, key and column, never the value."""


async def batches(connection: Connection, table: Table) -> AsyncIterator[list[Row]]:
    """Yield the rows of a table in the order of its key; the caller has a transaction open."""
    columns = ", ".join(f"{name}::int" if name in table.booleans else name for name in table.columns)
    cursor = await connection.cursor(f"SELECT {columns} FROM {table.name} ORDER BY {', '.join(table.key)}")  # noqa: S608
    while records := await cursor.fetch(BATCH):
        yield [tuple(record) for record in records]


async def sums(connection: Connection, advance: Advance) -> Sums:
    """Return what the database holds; the caller's transaction makes it one moment."""
    summing = Summing()
    for table in TABLES:
        async for rows in batches(connection, table):
            summing.take(table, rows)
            advance(len(rows))
        summing.end(table)
    return summing.done(await head(connection))


async def count(connection: Connection) -> int:
    """Return how many rows there are in all tables together; older versions lack some."""
    total = 0
    for table in TABLES:
        if await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", table.name):
            total += await connection.fetchval(f"SELECT count(*) FROM {table.name}")  # noqa: S608 (static text)
    return total


async def head(connection: Connection) -> ChainHead:
    """Return the newest event's sequence number and hash."""
    row = await connection.fetchrow(_HEAD)
    return ChainHead(seq=row[0], hash=row[1]) if row else ChainHead(seq=0, hash=GENESIS)


async def hash_of(connection: Connection, seq: int) -> str | None:
    """Return the hash of an event, of the newest archived one too; None where it is not known."""
    found = await connection.fetchval(_HASH_OF, seq)
    return str(found) if found is not None else None


async def identity(connection: Connection) -> tuple[Any, ...]:
    """Return what is the same for two connections if they see the same tables."""
    return tuple(await connection.fetchrow(_IDENTITY))


async def daemons(connection: Connection) -> list[str]:
    """Return the hosts of the daemons that work with the database now."""
    return [str(row[0]) for row in await connection.fetch(_DAEMONS, DAEMON)]


async def into_file(connection: Connection, file: Path, now: int, advance: Advance) -> Sums:
    """Fill a SQLite file with all rows, each as it is, and return what was read.

    Args:
        connection: is in a transaction, which makes it one moment.
        file: exists and is empty.
        now: Unix seconds, recorded with the file's migrations.
        advance: is told of rows that are in the file.

    Raises:
        MigrationError, OSError, sqlite3.Error: the file could not be made; it is to be thrown away.
    """
    await asyncio.to_thread(migrate, file, now=now, backups=None)
    summing = Summing()
    with closing(sqlite_file.connect(file, "rw", one_thread=False)) as made:
        await asyncio.to_thread(_begin, made)
        for table in TABLES:
            async for rows in batches(connection, table):
                await asyncio.to_thread(_take, made, table, rows, summing)
                advance(len(rows))
            summing.end(table)
        await asyncio.to_thread(made.execute, "COMMIT")
    return summing.done(await head(connection))


def _begin(made: sqlite3.Connection) -> None:
    """A file that is thrown away after a crash needs no log of its changes."""
    made.execute("PRAGMA journal_mode = OFF")
    made.execute("PRAGMA synchronous = OFF")
    made.execute("BEGIN")


def _take(made: sqlite3.Connection, table: Table, rows: list[Row], summing: Summing) -> None:
    sqlite_rows.insert(made, table, rows)
    summing.take(table, rows)


async def lock(connection: Connection) -> None:
    """Keep everybody else from the tables until the transaction ends.

    Raises:
        asyncpg.LockNotAvailableError: somebody has them, for more than a moment.
    """
    await connection.execute("SET LOCAL lock_timeout = '5s'")
    await connection.execute(_LOCK)


async def replace(connection: Connection, file: sqlite3.Connection, newest: ChainHead, advance: Advance) -> None:
    """Put the rows of a SQLite file in the place of all that the database holds.

    Args:
        connection: is in a transaction that has the tables locked; after an error it must be rolled back.
        file: holds them.
        newest: the newest event of the file.
        advance: is told of rows that were sent.

    Raises:
        UnfitError: PostgreSQL cannot hold a row.
    """
    for statement in (_UNGUARD, _EMPTY, _GUARD):
        await connection.execute(statement)
    for table in TABLES:
        try:
            await connection.copy_records_to_table(
                table.name,
                records=_records(file, table, advance),
                columns=table.columns,
                timeout=_COPY_SECONDS,
            )
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, OverflowError, TypeError) as error:
            raise UnfitError(_unfit(table, error)) from error
    await connection.execute(_SET_HEAD, newest.seq, newest.hash)
    await connection.execute(_SET_IDENTITY)
    await connection.execute(f"ANALYZE {_NAMES}")


def _records(file: sqlite3.Connection, table: Table, advance: Advance) -> Iterator[tuple[Any, ...]]:
    booleans = [index for index, name in enumerate(table.columns) if name in table.booleans]
    for rows in sqlite_rows.batches(file, table):
        for row in rows:
            yield _converted(table, row, booleans)
        advance(len(rows))


def _converted(table: Table, row: Row, booleans: list[int]) -> tuple[Any, ...]:
    values = list(row)
    for index in booleans:
        values[index] = bool(values[index])
    for name, value in zip(table.columns, values, strict=True):
        if isinstance(value, str) and "\0" in value:
            key = ", ".join(str(row[table.columns.index(column)]) for column in table.key)
            raise UnfitError(f"{table.name} {key}: its {name} has a NUL character, which PostgreSQL cannot hold")
    return tuple(values)


def _unfit(table: Table, error: Exception) -> str:
    """Say which row it was as far as the server says so; what its details quote stays out."""
    column = getattr(error, "column_name", None)
    rule = getattr(error, "constraint_name", None)
    where = f" (column {column})" if column else f" (rule {rule})" if rule else ""
    said = getattr(error, "message", None) or type(error).__name__
    return f"{table.name}: a row is none that PostgreSQL can hold{where}: {said}"
