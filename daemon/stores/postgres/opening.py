"""Opening the PostgreSQL engine."""

import os
from collections.abc import Callable
from typing import Literal

from daemon.domain.clock import Clock
from daemon.domain.errors import DaemonError
from daemon.domain.events import Event
from daemon.stores.cache import SessionCache
from daemon.stores.postgres.connection import ERRORS, open_pool, unavailable
from daemon.stores.postgres.database import PostgresStore
from daemon.stores.postgres.reasons import reason
from daemon.stores.postgres.watch import Watch


async def open_store(
    url: str,
    clock: Clock,
    *,
    synchronous: Literal["full", "normal"] = "full",
    cache_sessions: int,
    announce: Callable[[list[Event]], None],
    report: Callable[..., None],
    instance: str | None = None,
) -> PostgresStore:
    """Open a migrated database.

    Args:
        url: `postgresql://…`.
        clock: the domain clock.
        synchronous: `full` waits until the server has a commit on its disk, `normal` does not: what was acknowledged
            in the last moment before the server crashed may be gone, and nothing else.
        cache_sessions: sessions kept in memory at most.
        announce: called with events after their commit.
        report: tells what goes wrong with storage: the name of a line of the log, and its fields.
        instance: this daemon's id among those that share the database; a random one when None.

    Raises:
        DaemonError: STORAGE_UNAVAILABLE.
    """
    pool = await open_pool(url, settings={"synchronous_commit": "on" if synchronous == "full" else "off"})
    cache, name = SessionCache(cache_sessions, clock), instance or os.urandom(8).hex()
    watch = Watch(url, name, pool=pool, cache=cache, clock=clock, announce=announce, report=report)
    store = PostgresStore(
        pool,
        clock,
        cache,
        watch,
        instance=name,
        failed=lambda error: report("storage.failed", operation="commit", reason=reason(error, url)),
    )
    try:
        await watch.open()
    except ERRORS as error:
        await store.close()
        raise unavailable(error) from error
    except DaemonError:
        await store.close()
        raise
    return store
