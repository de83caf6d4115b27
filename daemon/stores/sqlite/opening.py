"""Opening the SQLite engine."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

from daemon.domain.clock import Clock
from daemon.domain.events import Event
from daemon.domain.kill_switch import KEY as KILL_SWITCH
from daemon.domain.kill_switch import is_on
from daemon.stores.cache import SessionCache
from daemon.stores.sqlite import events
from daemon.stores.sqlite.connection import Connection, Readers, Synchronous, open_connection, unavailable
from daemon.stores.sqlite.database import SQLiteStore
from daemon.stores.sqlite.writer import Writer

READERS = 2


async def open_store(
    path: Path,
    clock: Clock,
    *,
    synchronous: Synchronous,
    cache_sessions: int,
    checkpoint_seconds: float = 300.0,
    announce: Callable[[list[Event]], None],
    failed: Callable[[Exception], None],
) -> SQLiteStore:
    """Open a migrated database.

    Args:
        path: the database file.
        clock: the domain clock.
        synchronous: `full` or `normal`.
        cache_sessions: sessions kept in memory at most.
        checkpoint_seconds: between checkpoints of the write-ahead log.
        announce: called with events after their commit.
        failed: called with what kept a batch from being committed.

    Raises:
        DaemonError: STORAGE_UNAVAILABLE.
    """
    cache = SessionCache(cache_sessions, clock)
    connections: list[Connection] = []
    try:
        connection = await open_connection(path, synchronous, read_only=False)
        connections.append(connection)
        for _ in range(READERS):
            connections.append(await open_connection(path, synchronous, read_only=True))
        newest = await connection.run(events.head)
    except sqlite3.Error as error:
        for opened in connections:
            await opened.close()
        raise unavailable(error) from error

    def lost(error: Exception) -> None:
        cache.clear()
        failed(error)

    writer = Writer(connection, clock, newest, announce, lost)
    store = SQLiteStore(
        path,
        connection=connection,
        writer=writer,
        readers=Readers(connections[1:]),
        clock=clock,
        cache=cache,
        checkpoint_seconds=checkpoint_seconds,
    )
    store.locked = is_on(await store.value(KILL_SWITCH))
    return store


def newest_event_time(path: Path) -> int:
    """Return the newest event's time (Unix seconds) of a database that is not open yet; 0 if there is none."""
    raw = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        return events.newest_timestamp(raw)
    finally:
        raw.close()
