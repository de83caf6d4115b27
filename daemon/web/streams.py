"""Live events as Server-Sent Events (WHATWG HTML, section 9.2): one hub, and a reader for each open stream."""

import asyncio
import contextlib
from typing import Any

from daemon.domain import errors
from daemon.domain.errors import RATE_LIMIT_EXCEEDED, DaemonError, invalid
from daemon.domain.events import Event
from daemon.domain.filters import EventFilter
from daemon.services.audit import Audit
from daemon.web.open_stream import KEEP_ALIVE, NOT_ADMITTED, SHUTTING_DOWN, Admits, OpenStream, StreamLimits
from daemon.web.ring import CHUNK, Ring, frame

TICK_SECONDS = 0.5
"""Between two looks at every stream."""

_BATCH = 100
"""Events that are read from the database at once."""
_RETRY_AFTER = 5


class Streams:
    """Hands every committed event to the streams that show it. Only the event loop's thread uses it.

    Args:
        audit: the rows, which are the truth: what is not in memory is read from them.
        head: the newest event's sequence number.
        limits: what streams may take.
    """

    def __init__(self, audit: Audit, head: int, limits: StreamLimits) -> None:
        self.audit = audit
        self.head = head
        self.limits = limits
        self.reading = asyncio.Semaphore(1)
        """Held while rows are read: streams that catch up must leave the other readers to the requests."""
        self._readers: dict[str | None, list[Stream]] = {}
        self._rings: dict[str | None, Ring] = {}
        self._unread: set[str | None] = set()
        self._waking: asyncio.TimerHandle | None = None
        self._woken = 0.0
        self._closed = False
        self._open: set[OpenStream] = set()

    def publish(self, event: Event) -> None:
        """Take an event after its commit; one that `tick` has already found in the rows is not new."""
        if event.seq <= self.head:
            return
        if event.seq != self.head + 1:
            self._restart(event.seq - 1)
        self.head = event.seq
        shown_by = [key for key in {None, event.session_id} if key in self._rings]
        if shown_by:
            encoded = frame(event)
            for key in shown_by:
                self._rings[key].add(event.seq, encoded)
            self._wake_soon(*shown_by)

    def _restart(self, head: int) -> None:
        """Send every reader to the rows: events up to `head` were committed without being announced."""
        self.head = head
        for ring in self._rings.values():
            ring.restart(head)
        self._wake_soon(*self._rings)

    def _wake_soon(self, *keys: str | None) -> None:
        self._unread.update(keys)
        if self._waking is None:
            loop = asyncio.get_running_loop()
            wait = self._woken + self.limits.gather_seconds - loop.time()
            self._waking = loop.call_later(max(0.0, wait), self._wake)

    def _wake(self) -> None:
        self._waking, self._woken = None, asyncio.get_running_loop().time()
        unread, self._unread = self._unread, set()
        for key in unread:
            for stream in self._readers.get(key, ()):
                stream.wake()

    def enter(self, stream: OpenStream) -> None:
        """Register a stream.

        Raises:
            DaemonError: RATE_LIMIT_EXCEEDED, SHUTTING_DOWN.
        """
        if self._closed:
            raise DaemonError(errors.SHUTTING_DOWN)
        limit = self.limits.owner_streams if stream.group is None else self.limits.session_streams
        if sum(one.group == stream.group for one in self._open) >= limit:
            raise DaemonError(RATE_LIMIT_EXCEEDED, "Too many event streams are open.", retry_after=_RETRY_AFTER)
        self._open.add(stream)

    def leave(self, stream: OpenStream) -> None:
        """Forget a stream."""
        self._open.discard(stream)

    def show(self, stream: "Stream") -> Ring:
        """Let a stream be woken for events, and return where the newest ones are."""
        key = stream.session_id
        readers = self._readers.get(key, [])
        if not readers:
            share = 1 if key is None else 16
            events, size = self.limits.ring_events // share, self.limits.ring_bytes // share
            self._readers[key], self._rings[key] = readers, Ring(self.head, events=events, size=size)
        readers.append(stream)
        return self._rings[key]

    def hide(self, stream: "Stream") -> None:
        """Wake a stream no more."""
        readers = self._readers[stream.session_id]
        readers.remove(stream)
        if not readers:
            del self._readers[stream.session_id], self._rings[stream.session_id]

    async def tick(self) -> None:
        """Look at every stream: is it stuck, silent, still admitted? To be called every `TICK_SECONDS`."""
        if not self._open:
            return
        head = await self.audit.head()
        if head.seq > self.head:
            self._restart(head.seq)
        streams = list(self._open)
        now = asyncio.get_running_loop().time()
        for stream in streams:
            stream.look(now)
        for stream in streams:
            # A stream whose session cannot be read ends too: it resumes when the database is back.
            with contextlib.suppress(DaemonError):
                if await stream.admits():
                    continue
            stream.end(NOT_ADMITTED)

    def end_sessions(self) -> None:
        """End the streams of all sessions, each after its last event."""
        for stream in self._open:
            if stream.group is not None:
                stream.end(NOT_ADMITTED)

    def end_owners(self) -> None:
        """End the streams of the owner, each after its last event: who opened one need not be the owner any more."""
        for stream in self._open:
            if stream.group is None:
                stream.end(NOT_ADMITTED)

    def shut_down(self) -> None:
        """End every stream at once, and open none any more."""
        self._closed = True
        for stream in self._open:
            stream.end(SHUTTING_DOWN)

    def open_by_reader(self) -> dict[str, int]:
        """Return how many streams are open, those of the owner and those of sessions."""
        owners = sum(one.group is None for one in self._open)
        return {"owner": owners, "session": len(self._open) - owners}

    def kept(self) -> int:
        """Return the bytes of events that are in memory."""
        return sum(ring.bytes for ring in self._rings.values())


class Stream(OpenStream):
    """An open stream of events.

    Args:
        hub: where events come from.
        position: the last event that the client has; None is the newest one.
        session_id: whose events are shown; None shows all.
        admits: says at every look whether the reader may still read.
    """

    def __init__(self, hub: Streams, position: int | None, *, session_id: str | None, admits: Admits) -> None:
        super().__init__(hub, session_id, admits)
        self.position = hub.head if position is None else position
        self.session_id = session_id
        self._hub = hub
        self._ring: Ring

    def enter(self) -> None:
        """Register, and find where its newest events are."""
        if self.position > self._hub.head:
            raise invalid(("Last-Event-ID", f"must not be larger than the newest event's, {self._hub.head}"))
        super().enter()
        self._ring = self._hub.show(self)

    def leave(self) -> None:
        """Let go of everything."""
        self._hub.hide(self)
        super().leave()

    def greeting(self) -> bytes:
        """Return the id that lets a client that has seen no event yet resume without a gap."""
        return b": connected\nretry: 1000\nid: %d\n\n" % self.position

    async def pump(self, send: Any) -> None:
        """Send events, the last ones too when the stream is ending."""
        while not self._gone and self._last_words is not SHUTTING_DOWN:
            self._news.clear()
            ending = self._last_words is not None
            chunk = await self._next(ending=ending)
            if chunk:
                await self._send(send, chunk)
                # Sending need not wait, and who has much to catch up with must let others have their turn.
                await asyncio.sleep(0)
            elif ending:
                return
            elif self._silent:
                await self._send(send, KEEP_ALIVE)
            else:
                await self._news.wait()

    async def _next(self, *, ending: bool) -> bytes:
        """Return the next frames and go on behind them; nothing if there are none yet.

        What ends a session is known before its last event is announced, so an ending stream asks the rows.
        """
        while not ending:
            found = self._ring.after(self.position)
            if found is not None:
                self.position, chunk = found
                return chunk
            if chunk := await self._read_rows():
                return chunk
        return await self._read_rows()

    async def _read_rows(self) -> bytes:
        async with self._hub.reading:
            head = self._hub.head
            which = EventFilter(after=self.position, session_id=self.session_id)
            events = await self._hub.audit.find(which, _BATCH)
        frames, size = list[bytes](), 0
        for event in events:
            # What is sent stays in memory for as long as the client does not read it, and events may be large.
            if size >= CHUNK:
                break
            frames.append(frame(event))
            size += len(frames[-1])
            self.position = event.seq
        if len(frames) == len(events) < _BATCH:
            self.position = max(self.position, head)
        return b"".join(frames)
