"""One open stream of Server-Sent Events (WHATWG HTML, section 9.2), whatever it shows."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from daemon.web.limits import EVENT_STREAM, TRANSPORT

KEEP_ALIVE = b": keep-alive\n\n"
SHUTTING_DOWN = b": shutting down\n\n"
NOT_ADMITTED = b": no longer admitted\n\n"

_GRACE = 0.4
"""Seconds that a client has to take the end of its stream; with a tick before it that is less than one."""
_HEADERS = [(b"content-type", EVENT_STREAM), (b"connection", b"close")]

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


class Hub(Protocol):
    """What every open stream is registered with."""

    limits: StreamLimits

    def enter(self, stream: "OpenStream") -> None:
        """Register a stream.

        Raises:
            DaemonError: RATE_LIMIT_EXCEEDED, SHUTTING_DOWN.
        """
        ...

    def leave(self, stream: "OpenStream") -> None:
        """Forget a stream."""
        ...


class OpenStream(ABC):
    """An ASGI application that sends events until it is ended or its client goes.

    Args:
        hub: looks at every stream from time to time.
        group: streams of one group are counted together: a session's, None for the owner's.
        admits: says at every look whether the reader may still read.
    """

    def __init__(self, hub: Hub, group: str | None, admits: Admits) -> None:
        self.group = group
        self.admits = admits
        self._registered_with = hub
        self._news = asyncio.Event()
        self._last_words: bytes | None = None
        self._gone = False
        self._silent = False
        self._sent = asyncio.get_running_loop().time()
        # From the beginning: the answers before this one on the connection may be unread too.
        self._sending = True
        self._transport: asyncio.WriteTransport

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer the request (ASGI 3); raises as `enter` before anything was sent."""
        self._transport = scope[TRANSPORT]
        self.enter()
        listening = asyncio.create_task(self._listen(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await self._send(send, self.greeting())
            await self.pump(send)
            await send({"type": "http.response.body", "body": self._last_words or b""})
        finally:
            listening.cancel()
            self.leave()

    def enter(self) -> None:
        """Register.

        Raises:
            DaemonError: as the hub does.
        """
        self._registered_with.enter(self)

    def leave(self) -> None:
        """Let go of everything."""
        self._registered_with.leave(self)

    @abstractmethod
    def greeting(self) -> bytes:
        """Return what is sent before anything else."""

    @abstractmethod
    async def pump(self, send: Any) -> None:
        """Send what there is, until the stream ends."""

    async def _listen(self, receive: Any) -> None:
        """Stop when the client hangs up."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self.wake()

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
        limits = self._registered_with.limits
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
