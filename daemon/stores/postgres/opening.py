"""Opening the PostgreSQL engine."""

import os
from collections.abc import Callable

from daemon.domain.clock import Clock
from daemon.domain.events import Event
from daemon.domain.kill_switch import KEY as KILL_SWITCH
from daemon.domain.kill_switch import is_on
from daemon.stores.cache import SessionCache
from daemon.stores.postgres.connection import open_pool
from daemon.stores.postgres.database import PostgresStore
from daemon.stores.postgres.reasons import reason


async def open_store(
    url: str,
    clock: Clock,
    *,
    cache_sessions: int,
    announce: Callable[[list[Event]], None],
    report: Callable[..., None],
    instance: str | None = None,
) -> PostgresStore:
    """Open a migrated database.

    Args:
        url: `postgresql://…`.
        clock: the domain clock.
        cache_sessions: sessions kept in memory at most.
        announce: called with events after their commit.
        report: tells what goes wrong with storage: the name of a line of the log, and its fields.
        instance: this daemon's id among those that share the database; a random one when None.

    Raises:
        DaemonError: STORAGE_UNAVAILABLE.
    """
    pool = await open_pool(url)
    store = PostgresStore(
        pool,
        clock,
        SessionCache(cache_sessions, clock),
        instance=instance or os.urandom(8).hex(),
        announce=announce,
        failed=lambda error: report("storage.failed", operation="commit", reason=reason(error, url)),
    )
    store.locked = is_on(await store.value(KILL_SWITCH))
    return store
