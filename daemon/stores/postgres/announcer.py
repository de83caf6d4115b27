"""Every event of every daemon, once and in order: what the log, the streams and the wake-ups are told."""

import asyncio
from collections.abc import Awaitable, Callable

from daemon.domain.errors import DaemonError
from daemon.domain.events import Event

CHUNK = 1_000
"""Events that are read and announced at once: the kill switch may commit some hundred thousand."""
_BREATH = 0.02
"""Seconds between two chunks: the log's queue is bounded."""
_RETRY_SECONDS = 0.25
_CLOSE_SECONDS = 1.0

Read = Callable[[int, int], Awaitable[list[Event]]]
"""Reads events after a sequence number, at most so many, oldest first."""


class Announcer:
    """Announces what was committed, by this daemon or another one.

    An own commit that is next in line is announced at once; before any other one the gap is read from the table.

    Args:
        read: reads events.
        announce: called with events in order, without a gap and never twice.
    """

    def __init__(self, read: Read, announce: Callable[[list[Event]], None]) -> None:
        self._read = read
        self._announce = announce
        self._told: int | None = None
        self._wanted = 0
        self._reading: asyncio.Task[None] | None = None

    def follow(self, after: int) -> None:
        """Begin: announce every event after this one."""
        self._told = after
        self._read_on()

    def committed(self, events: list[Event]) -> None:
        """Take the events of an own commit."""
        if not events:
            return
        self._wanted = max(self._wanted, events[-1].seq)
        if self._reading is None and events[0].seq - 1 == self._told and len(events) <= CHUNK:
            self._tell(events)
        self._read_on()

    def seen(self, seq: int) -> None:
        """Note that there are events up to this one."""
        self._wanted = max(self._wanted, seq)
        self._read_on()

    def look(self) -> None:
        """Look for events that nobody told of."""
        self.seen((self._told or 0) + 1)

    async def close(self) -> None:
        """Announce what is left, if that is soon done; what is not is logged at the next start."""
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=_CLOSE_SECONDS)
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    def _tell(self, events: list[Event]) -> None:
        self._told = events[-1].seq
        self._announce(events)

    def _read_on(self) -> None:
        if self._reading is None and self._told is not None and self._told < self._wanted:
            self._reading = asyncio.create_task(self._close_gap())

    async def _close_gap(self) -> None:
        try:
            while self._told is not None and self._told < self._wanted:
                try:
                    found = await self._read(self._told, CHUNK)
                except DaemonError:
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                if not found:
                    return
                self._tell(found)
                if len(found) == CHUNK:
                    await asyncio.sleep(_BREATH)
        finally:
            self._reading = None
