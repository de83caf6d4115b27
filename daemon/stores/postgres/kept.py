"""A connection of its own, kept: it is opened again whenever it is lost, fast at first."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from daemon.domain.errors import DaemonError
from daemon.stores.postgres.connection import ERRORS, Connection

Connect = Callable[[], Awaitable[Connection]]
Use = Callable[[Connection], Awaitable[object]]

ANSWER_SECONDS = 1.0
"""How long the server may take for an answer; a connection that is slower counts as lost."""
BEGIN_SECONDS = 3.0
"""How long a new connection may take to be prepared."""
FIRST_WAIT, LONGEST_WAIT = 0.05, 2.0
"""Seconds between two tries to open the connection."""
FAILURES = (*ERRORS, DaemonError)
"""What a connection that does not serve any more raises."""


def reason_of(error: BaseException) -> str:
    """Return in a few words why a connection failed; what a server says to a client holds no password."""
    if isinstance(error, TimeoutError):
        return "the server does not answer"
    cause = error.__cause__ if isinstance(error, DaemonError) and error.__cause__ else error
    return f"{type(cause).__name__}: {cause}".partition("\n")[0]


class Kept:
    """Opens a connection, prepares it, then uses it again and again until it fails; and begins anew.

    Args:
        connect: opens a connection.
        begin: is awaited once on each connection before it is used; has `BEGIN_SECONDS` for it.
        beat: is awaited on it every `seconds`; has `ANSWER_SECONDS` for it.
        seconds: between two beats.
        lost: called with the reason when a connection that worked does not any more.
        back: called when it works again.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        begin: Use,
        beat: Use,
        seconds: float,
        lost: Callable[[str], None],
        back: Callable[[], None],
    ) -> None:
        self._connect = connect
        self._begin = begin
        self._beat = beat
        self._seconds = seconds
        self._on_lost = lost
        self._on_back = back
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()

    async def open(self) -> None:
        """Open it for the first time and use it once.

        Raises:
            DaemonError, OSError, TimeoutError, asyncpg.PostgresError: it cannot be opened.
        """
        try:
            connection = await self._renew()
        except FAILURES:
            self._drop()
            raise
        self._task = asyncio.create_task(self._keep(connection))

    async def close(self) -> None:
        """Let go of it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._connection is not None:
            with contextlib.suppress(*FAILURES):
                await self._connection.close(timeout=ANSWER_SECONDS)
        self._drop()

    def wake(self) -> None:
        """Use it now instead of at the next beat."""
        self._woken.set()

    async def _renew(self) -> Connection:
        self._connection = connection = await self._connect()
        connection.add_termination_listener(lambda _: self.wake())
        async with asyncio.timeout(BEGIN_SECONDS):
            await self._begin(connection)
        await self._use(connection)
        return connection

    async def _use(self, connection: Connection) -> None:
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._beat(connection)

    async def _keep(self, connection: Connection) -> None:
        while True:
            try:
                await self._rest()
                await self._use(connection)
            except FAILURES as error:
                self._drop()
                self._on_lost(reason_of(error))
                connection = await self._again()
                self._on_back()

    async def _rest(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                await self._woken.wait()
        self._woken.clear()

    async def _again(self) -> Connection:
        wait = FIRST_WAIT
        while True:
            try:
                return await self._renew()
            except FAILURES:
                self._drop()
            await asyncio.sleep(wait)
            wait = min(LONGEST_WAIT, wait * 2)

    def _drop(self) -> None:
        """End a connection that may hang: nothing is said to the server any more."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
