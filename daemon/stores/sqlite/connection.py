"""SQLite connections: each with a thread of its own, a whole function a hop."""

import asyncio
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar, cast

import aiosqlite

from daemon.domain.errors import STORAGE_UNAVAILABLE, DaemonError

T = TypeVar("T")
Synchronous = Literal["full", "normal"]

RETRY_AFTER = 5
"""Seconds after which a client may try again while the database is away."""

_WRITER_CACHE_KIB = 8_192
_READER_CACHE_KIB = 2_048
"""A reader's misses are served by the system's own cache; the same pages once more in each reader are only memory."""

_AUTOCHECKPOINT_PAGES = 4_000


class Connection(aiosqlite.Connection):
    """An aiosqlite connection that runs a whole function on its thread: one hop instead of one a statement."""

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run `function` with the plain connection on this connection's thread and return what it returns."""
        return cast("T", await self._execute(function, self._conn))  # type: ignore[no-untyped-call]


def unavailable(cause: Exception) -> DaemonError:
    """Return STORAGE_UNAVAILABLE for what SQLite raised; its text goes to the log with the cause, not to the client."""
    error = DaemonError(STORAGE_UNAVAILABLE, retry_after=RETRY_AFTER)
    error.__cause__ = cause
    return error


async def open_connection(path: Path, synchronous: Synchronous, *, read_only: bool) -> Connection:
    """Open the database with the settings every connection has.

    Args:
        path: the database file; it exists.
        synchronous: `full` survives a power cut after every commit, `normal` may lose the last ones.
        read_only: for the readers.
    """

    def connect() -> sqlite3.Connection:
        uri = f"{path.as_uri()}?mode={'ro' if read_only else 'rw'}"
        return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=256)

    connection = Connection(connect, iter_chunk_size=64)
    await connection
    try:
        await connection.run(lambda raw: _configure(raw, synchronous, read_only=read_only))
    except BaseException:
        await connection.close()
        raise
    return connection


def _configure(raw: sqlite3.Connection, synchronous: Synchronous, *, read_only: bool) -> None:
    raw.execute("PRAGMA busy_timeout=5000")
    raw.execute("PRAGMA foreign_keys=ON")
    raw.execute(f"PRAGMA cache_size=-{_READER_CACHE_KIB if read_only else _WRITER_CACHE_KIB}")
    if read_only:
        raw.execute("PRAGMA query_only=ON")
        return
    raw.execute("PRAGMA journal_mode=WAL")
    raw.execute(f"PRAGMA synchronous={synchronous.upper()}")
    raw.execute(f"PRAGMA wal_autocheckpoint={_AUTOCHECKPOINT_PAGES}")
    if sys.platform == "darwin":
        raw.execute("PRAGMA fullfsync=ON")


class Readers:
    """A few read-only connections; the next free one answers."""

    def __init__(self, connections: list[Connection]) -> None:
        self._all = connections
        self._free: asyncio.Queue[Connection] = asyncio.Queue()
        for connection in connections:
            self._free.put_nowait(connection)

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run a reading function on a free connection.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE.
        """
        connection = await self._free.get()
        try:
            return await connection.run(function)
        except sqlite3.Error as error:
            raise unavailable(error) from error
        finally:
            self._free.put_nowait(connection)

    async def close(self) -> None:
        """Close every connection and end its thread."""
        for connection in self._all:
            await connection.close()
