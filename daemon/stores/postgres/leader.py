"""Which of the daemons on one database runs a background task: who holds its advisory lock."""

import asyncio
import contextlib
import time

from daemon.stores.postgres.connection import Connection
from daemon.stores.postgres.kept import FAILURES, Connect, Kept

BEAT_SECONDS = 0.5
LEASE_SECONDS = 1.5
"""How long a lock counts as held without word from the server: shorter than the server keeps it for a dead host."""
SERVER_SETTINGS = {
    "tcp_keepalives_idle": "1",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "2",
    "tcp_user_timeout": "2000",
}
"""How the server finds out that a host is gone, and gives its locks to another daemon: within three seconds."""

_NAMESPACE = 1_684_104_562

# Take the locks that are free; they are the session's, until it ends.
_TAKE = (
    "SELECT name FROM unnest($2::text[]) AS name"
    " WHERE pg_try_advisory_lock($1, hashtext(current_schema() || '.' || name))"
)


class Leader:
    """Holds the locks of tasks on a connection of its own: whoever loses it loses them.

    Args:
        connect: opens a connection whose server settings are `SERVER_SETTINGS`.
    """

    def __init__(self, connect: Connect) -> None:
        self._wanted: set[str] = set()
        self._held: set[str] = set()
        self._confirmed = float("-inf")
        self._taking = asyncio.Lock()
        self._connection: Connection | None = None
        self._kept = Kept(
            connect, begin=self._begin, beat=self._take, seconds=BEAT_SECONDS, lost=self._lose, back=lambda: None
        )

    async def open(self) -> None:
        """Connect.

        Raises:
            DaemonError, OSError, TimeoutError, asyncpg.PostgresError: the server cannot be reached.
        """
        await self._kept.open()

    async def close(self) -> None:
        """Give every lock back."""
        self._held.clear()
        await self._kept.close()

    async def leads(self, worker: str) -> bool:
        """Return whether it is for this daemon to run a task now; never raises."""
        if worker not in self._wanted:
            self._wanted.add(worker)
            await self._take_now()
        return worker in self._held and time.monotonic() - self._confirmed < LEASE_SECONDS

    async def _take_now(self) -> None:
        """Do not let a task wait for the next beat when it is asked for the first time."""
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(*FAILURES):
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._take(connection)

    async def _begin(self, connection: Connection) -> None:
        self._connection = connection

    async def _take(self, connection: Connection) -> None:
        async with self._taking:
            sent, missing = time.monotonic(), sorted(self._wanted - self._held)
            rows = await connection.fetch(_TAKE, _NAMESPACE, missing)
            if connection is self._connection:
                self._held.update(row["name"] for row in rows)
                self._confirmed = sent

    def _lose(self, _reason: str) -> None:
        self._connection = None
        self._held.clear()
