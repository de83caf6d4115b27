"""PostgreSQL connections: bounded in number, bounded in time, and what their errors mean."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias, TypeVar

import asyncpg

from daemon.domain.errors import STORAGE_UNAVAILABLE, DaemonError

T = TypeVar("T")
Connection: TypeAlias = asyncpg.Connection

RETRY_AFTER = 5
"""Seconds after which a client may try again while the database is away."""

POOL = 10
"""Connections for reading and writing; a daemon opens a few more for what it must hear at once."""

DAEMON = "agent-session-daemon"
"""How the connections of a daemon are named: what needs a database for itself looks for them."""

ANSWER_TIMEOUT = 0.95
"""Seconds a question may take, waiting for a connection included: a server that hangs is an error within a second."""

CONNECT_TIMEOUT = 3.0
"""Seconds a new connection may take; who asks for it waits less, and the next one gets it."""

ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
"""Everything that asyncpg and the operating system raise; cancellation is not an error of the database."""

LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleSessionTimeoutError,
    OSError,
)
"""Those that say the server has gone away from a connection, or told it to go."""

_EPOCH = 946_684_800
"""PostgreSQL counts from 2000-01-01 UTC; this is that day in Unix seconds."""

_MICROSECONDS = 1_000_000


def unavailable(cause: BaseException) -> DaemonError:
    """Return STORAGE_UNAVAILABLE for what was raised; its text goes to the log with the cause, not to the client."""
    error = DaemonError(STORAGE_UNAVAILABLE, retry_after=RETRY_AFTER)
    error.__cause__ = cause
    return error


async def connect(
    url: str,
    *,
    seconds: float = ANSWER_TIMEOUT,
    command_timeout: float | None = None,
    settings: Mapping[str, str] | None = None,
) -> Connection:
    """Open a connection on which timestamptz is Unix seconds, rounded down, in both directions.

    Args:
        url: `postgresql://…`, with a password or without.
        seconds: until the connection must be there.
        command_timeout: seconds a statement may take; None is no limit.
        settings: of the server, for this connection.

    Raises:
        asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError: there is none; see `ERRORS`.
    """
    async with asyncio.timeout(seconds):
        connection = await asyncpg.connect(
            url,
            timeout=seconds,
            command_timeout=command_timeout,
            server_settings={"application_name": DAEMON, **(settings or {})},
        )
        try:
            await connection.set_type_codec(
                "timestamptz", schema="pg_catalog", encoder=_to_wire, decoder=_from_wire, format="tuple"
            )
        except BaseException:
            connection.terminate()
            raise
    return connection


def _to_wire(seconds: int) -> tuple[int]:
    return ((seconds - _EPOCH) * _MICROSECONDS,)


def _from_wire(wire: tuple[int]) -> int:
    return wire[0] // _MICROSECONDS + _EPOCH


class Pool:
    """A few connections; the next free one answers, and one that was lost or may still be busy is replaced.

    asyncpg's own pool waits, when it takes a connection back, for a server that hangs.
    """

    def __init__(self, url: str, size: int, settings: Mapping[str, str] | None = None) -> None:
        self.url = url
        self._settings = settings
        self._free: asyncio.LifoQueue[Connection | None] = asyncio.LifoQueue()
        self._all: set[Connection] = set()
        self._opening: set[asyncio.Future[Connection]] = set()
        for _ in range(size):
            self._free.put_nowait(None)

    async def run(
        self, function: Callable[[Connection], Awaitable[T]], *, seconds: float = ANSWER_TIMEOUT, again: bool = True
    ) -> T:
        """Run a function on a free connection and return what it returns.

        Args:
            function: what it leaves open in a transaction is rolled back.
            seconds: until the answer must be there, waiting for a connection included.
            again: whether it is run a second time, on a new connection, if the server was found to have left the
                first; false where it cannot know what its first attempt did.

        Raises:
            DaemonError: STORAGE_UNAVAILABLE.
        """
        try:
            async with asyncio.timeout(seconds):
                try:
                    return await self._once(function)
                except LOST:
                    if not again:
                        raise
                return await self._once(function, fresh=True)
        except ERRORS as error:
            raise unavailable(error) from error

    async def _once(self, function: Callable[[Connection], Awaitable[T]], *, fresh: bool = False) -> T:
        held = await self._take(fresh=fresh)
        usable = False
        try:
            answer = await function(held)
        except (*LOST, TimeoutError, asyncio.CancelledError):
            raise
        except Exception:
            usable = _is_idle(held)
            raise
        else:
            usable = _is_idle(held)
            return answer
        finally:
            if not usable:
                self._drop(held)
            self._free.put_nowait(held if usable else None)

    async def _take(self, *, fresh: bool) -> Connection:
        held = await self._free.get()
        if held is not None and not fresh and not held.is_closed():
            return held
        self._drop(held)
        opening = asyncio.ensure_future(connect(self.url, seconds=CONNECT_TIMEOUT, settings=self._settings))
        self._opening.add(opening)
        try:
            opened = await asyncio.shield(opening)
        except BaseException:
            opening.add_done_callback(self._give_back)
            raise
        self._opening.discard(opening)
        self._all.add(opened)
        return opened

    def _give_back(self, opening: asyncio.Future[Connection]) -> None:
        """Keep for the next one what took longer than who asked for it would wait."""
        self._opening.discard(opening)
        opened = None if opening.cancelled() or opening.exception() else opening.result()
        if opened is not None:
            self._all.add(opened)
        self._free.put_nowait(opened)

    def _drop(self, connection: Connection | None) -> None:
        if connection is not None:
            self._all.discard(connection)
            connection.terminate()

    async def close(self) -> None:
        """Close every connection; one that is in use is cut off."""
        opening = list(self._opening)
        for future in opening:
            future.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        for connection in list(self._all):
            self._drop(connection)


def _is_idle(connection: Connection | None) -> bool:
    return connection is not None and not connection.is_closed() and not connection.is_in_transaction()


async def open_pool(url: str, size: int = POOL, settings: Mapping[str, str] | None = None) -> Pool:
    """Return a pool whose first connection is open.

    Args:
        url: of the database.
        size: the most connections it has at a time.
        settings: of the server, for each of them.

    Raises:
        DaemonError: STORAGE_UNAVAILABLE.
    """
    pool = Pool(url, size, settings)
    try:
        await pool.run(lambda connection: connection.fetchval("SELECT 1"), seconds=CONNECT_TIMEOUT)
    except BaseException:
        await pool.close()
        raise
    return pool
