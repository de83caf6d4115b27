"""The server's clock, which is the time of every daemon on the database."""

import time
from collections.abc import Callable

from daemon.domain.clock import Clock
from daemon.stores.postgres.connection import Connection, Pool

MEASURE_SECONDS = 60.0
SKEW_SECONDS = 5.0
"""From this difference on the owner is told that a machine's clock is wrong."""
_TRIES = 3

_NOW = "SELECT extract(epoch FROM clock_timestamp())::float8"


async def offset(raw: Connection, wall: Callable[[], float] = time.time) -> float:
    """Return by how many seconds the server's clock is ahead of this machine's, as the fastest of a few answers says.

    Half of an answer's time is taken for its way here.

    Args:
        raw: the connection.
        wall: returns this machine's time in Unix seconds.
    """
    measured = []
    for _ in range(_TRIES):
        sent = wall()
        server = await raw.fetchval(_NOW)
        came = wall()
        measured.append((came - sent, server - (sent + came) / 2))
    return float(min(measured)[1])


class ServerClock:
    """Keeps the domain clock at the server's time.

    Args:
        pool: connections.
        clock: the domain clock.
        report: is told `clock.skewed`.
        wall: returns this machine's time in Unix seconds.
    """

    def __init__(
        self, pool: Pool, clock: Clock, report: Callable[..., None], wall: Callable[[], float] = time.time
    ) -> None:
        self._pool = pool
        self._wall = wall
        self._clock = clock
        self._report = report
        self._told = 0

    async def measure(self) -> None:
        """Measure once.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE.
        """
        ahead = await self._pool.run(lambda raw: offset(raw, self._wall))
        self._clock.adjust(ahead)
        skew = round(ahead) if abs(ahead) > SKEW_SECONDS else 0
        if abs(skew - self._told) > 1:
            self._told = skew
            if skew:
                self._report("clock.skewed", seconds=skew)
