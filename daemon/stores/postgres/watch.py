"""What keeps a daemon's memory true to rows that other daemons change."""

import asyncio
import os
from collections.abc import Callable

from daemon.domain.clock import Clock
from daemon.domain.errors import DaemonError
from daemon.domain.events import Event
from daemon.domain.filters import EventFilter
from daemon.domain.kill_switch import KEY as KILL_SWITCH
from daemon.domain.kill_switch import is_on
from daemon.stores.cache import SessionCache
from daemon.stores.postgres import events, values
from daemon.stores.postgres.announcer import Announcer
from daemon.stores.postgres.connection import Pool, connect
from daemon.stores.postgres.leader import SERVER_SETTINGS, Leader
from daemon.stores.postgres.listener import Listener, Report
from daemon.stores.postgres.reasons import reason
from daemon.stores.postgres.server_clock import MEASURE_SECONDS, ServerClock
from daemon.stores.postgres.word import Word
from daemon.stores.terms import Chore, Elsewhere

_RETRY_SECONDS = 0.1


class Watch:
    """Hears what other daemons changed, and says whether that is all of it.

    Args:
        url: of the database.
        instance: this daemon's id.
        pool: connections for reading.
        cache: sessions in memory.
        clock: the domain clock.
        announce: called with every event of every daemon, in order.
        report: tells what goes wrong with storage.
    """

    def __init__(
        self,
        url: str,
        instance: str,
        *,
        pool: Pool,
        cache: SessionCache,
        clock: Clock,
        announce: Callable[[list[Event]], None],
        report: Report,
    ) -> None:
        self.instance = instance
        """Under which it tells others of its commits; a new one once it does not know what became of one."""
        self._pool = pool
        self._cache = cache
        self.locked = False
        """Whether the kill switch is on, as far as is known."""
        self.on_message: Callable[[], None] = lambda: None
        self.on_elsewhere: Callable[[Elsewhere], None] = lambda _: None
        self.announcer = Announcer(self._read_events, announce)
        self._clock = ServerClock(pool, clock, report)
        self._listener = Listener(
            lambda: connect(url),
            instance,
            heard=self._hear,
            begin=self._catch_up,
            report=report,
            explain=lambda error: reason(error.__cause__ or error, url),
        )
        self._leader = Leader(lambda: connect(url, settings=SERVER_SETTINGS))
        self.leads = self._leader.leads
        self._switched = 0
        self._switch_read = 0
        self._reading: asyncio.Task[None] | None = None

    @property
    def is_current(self) -> bool:
        """Whether what is in memory is known to be at most a second older than the rows."""
        return self._switch_read == self._switched and self._listener.is_current

    async def open(self) -> None:
        """Begin to listen, and take the server's time.

        Raises:
            DaemonError, OSError, TimeoutError, asyncpg.PostgresError: the server cannot be reached.
        """
        await self._clock.measure()
        await self._listener.open()
        await self._leader.open()

    async def close(self) -> None:
        """Let go of every connection."""
        await self._leader.close()
        await self._listener.close()
        await self.announcer.close()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    def chores(self) -> list[Chore]:
        """Return what keeps the clock right."""
        return [Chore("server-clock", MEASURE_SECONDS, self._clock.measure)]

    def switch(self, *, on: bool) -> None:
        """Take over the kill switch as an own commit left it; another daemon may have turned it since."""
        self.locked = on
        self._doubt_switch()

    def switches(self) -> int:
        """Return how often the switch may have been turned, for `settle`."""
        return self._switched

    def settle(self, since: int, *, on: bool) -> None:
        """Take over the switch as it was read, unless it may have been turned meanwhile."""
        if since == self._switched:
            self.locked = on
            self._switch_read = since

    def doubt_everything(self) -> None:
        """Trust nothing that is in memory: what was committed meanwhile is not known."""
        self._cache.doubt_everything()
        self._doubt_switch()
        self.on_elsewhere(Elsewhere(everything=True))
        self.on_message()

    def rename(self) -> None:
        """Trust nothing after a commit whose outcome is not known, and take word of it for another daemon's."""
        self.instance = os.urandom(8).hex()
        self.doubt_everything()
        self.announcer.look()

    def _hear(self, word: Word) -> None:
        if word.by == self.instance:
            return
        if word.everything:
            self.doubt_everything()
        else:
            self._cache.doubt(word.sessions, word.agents)
            if KILL_SWITCH in word.values:
                self._doubt_switch()
            if word.values or word.conversations or word.verifiers:
                self.on_elsewhere(Elsewhere(tuple(word.values), tuple(word.conversations), word.verifiers))
            if word.messages:
                self.on_message()
        self.announcer.seen(word.seq)

    async def _catch_up(self) -> None:
        """Begin anew after nothing was heard for a while."""
        self.doubt_everything()
        head = await self._pool.run(events.head)
        self.announcer.seen(head.seq)

    def _doubt_switch(self) -> None:
        self._switched += 1
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_switch())

    async def _read_switch(self) -> None:
        try:
            while self._switch_read != self._switched:
                since = self._switched
                try:
                    self.settle(since, on=is_on(await self._pool.run(lambda raw: values.get(raw, KILL_SWITCH))))
                except DaemonError:
                    await asyncio.sleep(_RETRY_SECONDS)
        finally:
            self._reading = None

    async def _read_events(self, after: int, limit: int) -> list[Event]:
        return await self._pool.run(lambda raw: events.find(raw, EventFilter(after=after), limit))
