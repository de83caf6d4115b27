"""Bring a PostgreSQL database to the schema of this program: numbered, recorded, atomic."""

import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg

from daemon.stores.migration_files import (
    Migrated,
    Migration,
    MigrationError,
    Recorded,
    data_file,
    first_line,
    load,
    verify,
)
from daemon.stores.postgres.connection import CONNECT_TIMEOUT, ERRORS, Connection, connect
from daemon.stores.postgres.reasons import place, reason

MAINTENANCE = "agent-session-daemon maintenance"
"""How connections are named that are no running daemon's."""

LOOK_SECONDS = 5.0
LOCK_SECONDS = 60
"""How long another daemon that migrates the same database is waited for."""

_OLDEST_SERVER = 14

_LOCK = 0x6461656D6F6E
"""The key of the advisory lock that keeps two daemons from migrating one database at once."""

_LEDGER = """CREATE TABLE IF NOT EXISTS schema_migrations (
  version bigint PRIMARY KEY,
  name text NOT NULL,
  sha256 text NOT NULL,
  applied_at timestamptz NOT NULL
)"""

_TABLES = """
SELECT relname FROM pg_catalog.pg_class
WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relkind IN ('r', 'p', 'f')
"""

_FORBIDDEN = {"ABORT", "BEGIN", "COMMIT", "END", "PREPARE", "RELEASE", "ROLLBACK", "SAVEPOINT", "START"}
"""A COMMIT inside a migration would silently leave half of it behind when the rest fails."""

_SEMICOLON = re.compile(
    r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"[^\"]*\"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|(?P<end>;)", re.DOTALL
)
"""A semicolon, or what may hold one that ends no statement: a comment, a string, a name, the body of a function."""

_FIRST_WORD = re.compile(r"(?:\s|--[^\n]*|/\*.*?\*/)*(\w*)", re.DOTALL)


async def migrate(
    url: str, *, now: int, applied: Callable[[str], None] | None = None, migrations: Path | None = None
) -> Migrated:
    """Fill an empty database or bring one up to date; a migration that fails leaves nothing of itself behind.

    Args:
        url: of the database, whose first schema in `search_path` is used.
        now: Unix seconds, recorded with each migration.
        applied: called with the name of each migration after its commit.
        migrations: directory of the files; the program's own when None.

    Raises:
        MigrationError: the server cannot be reached, is too old or refuses; the database is newer than the program
            or was made from other files; or a statement failed.
    """
    known = _known(migrations)
    names: list[str] = []
    with in_one_line(url):
        async with connected(url) as connection:
            before = verify(place(url), known, *await _ledger(connection, url))
            for migration in known[before:]:
                if await _apply(connection, migration, url=url, known=known, now=now):
                    names.append(migration.name)
                    if applied is not None:
                        applied(migration.name)
    return Migrated(from_version=before, to_version=len(known), applied=tuple(names), backup=None)


async def accepted_version(url: str) -> int:
    """Return the version of a database if this program may work with it; 0 where it is empty.

    Raises:
        MigrationError: as `migrate`.
    """
    with in_one_line(url):
        async with connected(url) as connection:
            return verify(place(url), _known(None), *await _ledger(connection, url))


def refuse_older(url: str, version: int) -> None:
    """Refuse a server that this program is not made for.

    Args:
        url: of the database.
        version: the server's major version.

    Raises:
        MigrationError: it is too old.
    """
    if version < _OLDEST_SERVER:
        raise MigrationError(
            f"{place(url)}: the server is PostgreSQL {version}; install version {_OLDEST_SERVER} or newer"
        )


def statements(sql: str) -> Iterator[str]:
    """Split at those semicolons that end a statement."""
    start = 0
    for match in _SEMICOLON.finditer(sql):
        if match["end"]:
            yield sql[start : match.end()].strip()
            start = match.end()
    if first_line(sql[start:]):
        yield sql[start:].strip()


@contextlib.contextmanager
def in_one_line(url: str) -> Iterator[None]:
    """Turn what asyncpg and the operating system raise into one line."""
    try:
        yield
    except ERRORS as error:
        raise MigrationError(f"{place(url)}: {reason(error, url)}") from error


@contextlib.asynccontextmanager
async def connected(url: str, *, command_timeout: float | None = None) -> AsyncIterator[Connection]:
    """Open a connection for a while.

    Args:
        url: of the database.
        command_timeout: seconds a statement may take; None is no limit.

    Raises:
        MigrationError: the server is too old; else as `connect`.
    """
    connection = await connect(
        url, seconds=CONNECT_TIMEOUT, command_timeout=command_timeout, settings={"application_name": MAINTENANCE}
    )
    try:
        refuse_older(url, connection.get_server_version().major)
        yield connection
    finally:
        # A server that has gone, or is busy with what failed, is not waited for.
        connection.terminate()


def _known(migrations: Path | None) -> list[Migration]:
    return load(migrations or data_file("migrations") / "postgres")


async def _ledger(connection: Connection, url: str) -> tuple[Recorded, list[str]]:
    """Return the ledger and the names of all other tables."""
    if await connection.fetchval("SELECT current_schema()", timeout=LOOK_SECONDS) is None:
        raise MigrationError(
            f"{place(url)}: no schema of search_path exists, or the user may not use it; "
            "create one, and GRANT CREATE, USAGE ON SCHEMA to the user"
        )
    names = [name for (name,) in await connection.fetch(_TABLES, timeout=LOOK_SECONDS)]
    others = [name for name in names if name != "schema_migrations"]
    if others == names:
        return [], others
    rows = await connection.fetch(
        "SELECT version, name, sha256 FROM schema_migrations ORDER BY version", timeout=LOOK_SECONDS
    )
    return [(version, name, sha256) for version, name, sha256 in rows], others


async def _apply(connection: Connection, migration: Migration, *, url: str, known: list[Migration], now: int) -> bool:
    """Run a migration in one transaction with its row; return whether no other daemon was faster.

    The row comes first, so that the migration can read the time there.
    """
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'; SET LOCAL statement_timeout = 0")
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        if verify(place(url), known, *await _ledger(connection, url)) >= migration.version:
            return False
        await connection.execute(_LEDGER)
        await connection.execute(
            "INSERT INTO schema_migrations (version, name, sha256, applied_at) VALUES ($1, $2, $3, $4)",
            migration.version,
            migration.name,
            migration.sha256,
            now,
        )
        for number, statement in enumerate(statements(migration.sql), 1):
            try:
                await _execute(connection, statement)
            except ERRORS as error:
                raise MigrationError(
                    f"{place(url)}: migration {migration.name} failed at statement {number} "
                    f"({first_line(statement)}): {reason(error, url)}"
                ) from error
    return True


async def _execute(connection: Connection, statement: str) -> None:
    word = _FIRST_WORD.match(statement)
    if word is not None and word[1].upper() in _FORBIDDEN:
        raise asyncpg.InterfaceError("a migration may not control transactions")
    await connection.execute(statement)
