"""Live events as Server-Sent Events (WHATWG HTML, section 9.2): one hub, and a reader for each open stream."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from daemon.domain.errors import RATE_LIMIT_EXCEEDED, SHUTTING_DOWN, DaemonError, invalid
from daemon.domain.events import Event
from daemon.domain.filters import EventFilter
from daemon.services.audit import Audit
from daemon.web.limits import EVENT_STREAM, TRANSPORT
from daemon.web.ring import CHUNK, Ring, frame

TICK_SECONDS = 0.5
"""Between two looks at every stream."""

_BATCH = 100
"""Events that are read from the database at once."""
_GRACE = 0.4
"""Seconds that a client has to take the end of its stream; with a tick before it that is less than one."""
_RETRY_AFTER = 5
_KEEP_ALIVE = b": keep-alive\n\n"
_HEADERS = [(b"content-type", EVENT_STREAM), (b"connection", b"close")]
_SHUTTING_DOWN = b": shutting down\n\n"
_NOT_ADMITTED = b": no longer admitted\n\n"

Admits = Callable[[], Awaitable[bool]]


class StreamLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What streams may take.

    Args:
        keep_alive: seconds of silence after which a comment is sent.
        send_seconds: how long a client may leave what was sent to it unread before it is cut off.
        gather_seconds: how long events are gathered once some were sent, so that many share one write.
        owner_streams: open at the same time.
        session_streams: of one session, open at the same time.
        ring_events: kept in memory for all owner streams together; a session's streams have a sixteenth of it.
        ring_bytes: likewise.
    """

    keep_alive: float = 15.0
    send_seconds: float = 30.0
    gather_seconds: float = 0.1
    owner_streams: int = 256
    session_streams: int = 4
    ring_events: int = 4_096
    ring_bytes: int = 4 << 20


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

    def open(self, stream: "Stream") -> Ring:
        """Register a stream and return where its newest events are.

        Raises:
            DaemonError: VALIDATION_ERROR, RATE_LIMIT_EXCEEDED, SHUTTING_DOWN.
        """
        if self._closed:
            raise DaemonError(SHUTTING_DOWN)
        if stream.position > self.head:
            raise invalid(("Last-Event-ID", f"must not be larger than the newest event's, {self.head}"))
        key, limits = stream.session_id, self.limits
        readers = self._readers.get(key, [])
        if len(readers) >= (limits.owner_streams if key is None else limits.session_streams):
            raise DaemonError(RATE_LIMIT_EXCEEDED, "Too many event streams are open.", retry_after=_RETRY_AFTER)
        if not readers:
            share = 1 if key is None else 16
            events, size = limits.ring_events // share, limits.ring_bytes // share
            self._readers[key], self._rings[key] = readers, Ring(self.head, events=events, size=size)
        readers.append(stream)
        return self._rings[key]

    def close(self, stream: "Stream") -> None:
        """Forget a stream."""
        readers = self._readers[stream.session_id]
        readers.remove(stream)
        if not readers:
            del self._readers[stream.session_id], self._rings[stream.session_id]

    async def tick(self) -> None:
        """Look at every stream: is it stuck, silent, still admitted? To be called every `TICK_SECONDS`."""
        if not self._readers:
            return
        head = await self.audit.head()
        if head.seq > self.head:
            self._restart(head.seq)
        streams = [stream for readers in self._readers.values() for stream in readers]
        now = asyncio.get_running_loop().time()
        for stream in streams:
            stream.look(now)
        for stream in streams:
            # A stream whose session cannot be read ends too: it resumes when the database is back.
            with contextlib.suppress(DaemonError):
                if await stream.admits():
                    continue
            stream.end(_NOT_ADMITTED)

    def end_sessions(self) -> None:
        """End the streams of all sessions, each after its last event."""
        for key, readers in self._readers.items():
            for stream in readers if key is not None else ():
                stream.end(_NOT_ADMITTED)

    def end_owners(self) -> None:
        """End the streams of the owner, each after its last event: who opened one need not be the owner any more."""
        for stream in self._readers.get(None, ()):
            stream.end(_NOT_ADMITTED)

    def shut_down(self) -> None:
        """End every stream at once, and open none any more."""
        self._closed = True
        for readers in self._readers.values():
            for stream in readers:
                stream.end(_SHUTTING_DOWN)

    def kept(self) -> int:
        """Return the bytes of events that are in memory."""
        return sum(ring.bytes for ring in self._rings.values())


class Stream:
    """One open stream: an ASGI application that sends events until it is ended or its client goes.

    Args:
        hub: where events come from.
        position: the last event that the client has; None is the newest one.
        session_id: whose events are shown; None shows all.
        admits: says at every look whether the reader may still read.
    """

    def __init__(self, hub: Streams, position: int | None, *, session_id: str | None, admits: Admits) -> None:
        self.position = hub.head if position is None else position
        self.session_id = session_id
        self.admits = admits
        self._hub = hub
        self._news = asyncio.Event()
        self._last_words: bytes | None = None
        self._gone = False
        self._silent = False
        self._sent = asyncio.get_running_loop().time()
        # From the beginning: the answers before this one on the connection may be unread too.
        self._sending = True
        self._ring: Ring
        self._transport: asyncio.WriteTransport

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer the request (ASGI 3); raises as `Streams.open` before anything was sent."""
        self._transport = scope[TRANSPORT]
        self._ring = self._hub.open(self)
        listening = asyncio.create_task(self._listen(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            # The id lets a client that has seen no event yet resume without a gap.
            await self._send(send, b": connected\nretry: 1000\nid: %d\n\n" % self.position)
            await self._pump(send)
            await send({"type": "http.response.body", "body": self._last_words or b""})
        finally:
            listening.cancel()
            self._hub.close(self)

    async def _listen(self, receive: Any) -> None:
        """Stop when the client hangs up."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self.wake()

    async def _pump(self, send: Any) -> None:
        while not self._gone and self._last_words is not _SHUTTING_DOWN:
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
                await self._send(send, _KEEP_ALIVE)
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

    async def _send(self, send: Any, body: bytes) -> None:
        """Send, which waits for as long as the client leaves too much unread."""
        loop = asyncio.get_running_loop()
        self._sent, self._silent, self._sending = loop.time(), False, True
        await send({"type": "http.response.body", "body": body, "more_body": True})
        self._sent, self._sending = loop.time(), False

    def wake(self) -> None:
        """Let the stream look for events."""
        self._news.set()

    def look(self, now: float) -> None:
        """Cut the client off if it does not read; keep a silent connection alive.

        Args:
            now: the event loop's time.
        """
        limits = self._hub.limits
        if self._sending and now - self._sent >= limits.send_seconds:
            self._transport.abort()
        elif not self._sending and now - self._sent >= limits.keep_alive:
            self._silent = True
            self.wake()

    def end(self, last_words: bytes) -> None:
        """End the stream with a comment; a client that does not take it in time is cut off."""
        if self._last_words is None:
            self._last_words = last_words
            # Even after the last byte was handed over: a stop must not wait for a client that leaves it unread.
            asyncio.get_running_loop().call_later(_GRACE, self._transport.abort)
            self.wake()
