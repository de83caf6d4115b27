"""Checked copies of a PostgreSQL database, each one SQLite file."""

import asyncio
import sqlite3
import uuid
from contextlib import AsyncExitStack
from pathlib import Path

from daemon import files
from daemon.stores import sqlite_file
from daemon.stores.inspection import check_whole, look
from daemon.stores.migration_files import MigrationError
from daemon.stores.postgres import copying
from daemon.stores.postgres.connection import ERRORS, Connection, unavailable
from daemon.stores.postgres.migrate import connected
from daemon.stores.sqlite import copying as sqlite_rows
from daemon.stores.sqlite.backup import refusal
from daemon.stores.tables import Advance, Sums
from daemon.stores.terms import BackupFile


async def back_up(url: str, directory: Path, stem: str, now: int) -> BackupFile:
    """Write a copy of one moment whose pages and audit log are whole, whether daemons run or not.

    Args:
        url: of the database.
        directory: receives the file; created with mode 0700 where it is missing.
        stem: its name begins with.
        now: Unix seconds.

    Raises:
        DaemonError: STORAGE_UNAVAILABLE, and nothing of it is left.
    """
    async with AsyncExitStack() as stack:
        try:
            connection = await stack.enter_async_context(connected(url, command_timeout=copying.STATEMENT_SECONDS))
        except (MigrationError, *ERRORS) as error:
            raise unavailable(error) from error
        try:
            made, _ = await write_file(connection, directory, stem, now, lambda _: None)
        except (sqlite3.Error, OSError, MigrationError) as error:
            raise refusal(error) from error
        except ERRORS as error:
            raise unavailable(error) from error
    return made


async def write_file(
    connection: Connection, directory: Path, stem: str, now: int, advance: Advance
) -> tuple[BackupFile, Sums]:
    """Do what `back_up` does on a connection that is there; return what was read too.

    Args:
        connection: not in a transaction.
        directory, stem, now: as of `back_up`.
        advance: is told of rows that are in the file.

    Raises:
        sqlite3.Error, MigrationError, OSError: the file could not be made, or what it would hold is not whole.
        asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError: the rows cannot be read.
    """
    await asyncio.to_thread(directory.mkdir, mode=0o700, parents=True, exist_ok=True)
    with files.partial(directory / f"{stem}-{uuid.uuid4().hex}") as made:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            found = await copying.into_file(connection, made, now, advance)
        await asyncio.to_thread(_check, made, found)
        path = await asyncio.to_thread(sqlite_file.publish, made, directory, stem)
    return BackupFile(path, path.stat().st_size, await asyncio.to_thread(files.sha256, path)), found


def _check(made: Path, found: Sums) -> None:
    with look(made) as connection:
        check_whole(connection)
        if not found.chain.valid:
            raise sqlite_file.DamagedError(f"the audit log is broken at event {found.chain.first_bad}")
        if sqlite_rows.sums(connection, lambda _: None) != found:
            raise sqlite_file.DamagedError("the copy does not hold what was written to it; check the disk")
