"""A lean HTTP/1.1 client for load: each connection keeps one request in flight, and measures."""

import asyncio
import time
from collections.abc import Sequence


class Answer:
    """One response: status, body, when it was complete (monotonic seconds) and how long it took."""

    __slots__ = ("at", "body", "seconds", "status")

    def __init__(self, status: int, body: bytes, at: float, seconds: float) -> None:
        self.status = status
        self.body = body
        self.at = at
        self.seconds = seconds


def request(method: str, path: str, *, body: bytes = b"", media: str = "application/json", **headers: str) -> bytes:
    """Return the bytes of a request; header names take `_` for `-`."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost:PORT"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body:
        lines += [f"Content-Type: {media}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


class _Connection(asyncio.Protocol):
    """Sends its requests one after the other."""

    def __init__(self, requests: Sequence[bytes], keep_bodies: bool) -> None:
        self.requests = requests
        self.answers: list[Answer] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._keep = keep_bodies
        self._buffer = b""
        self._started = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._next()

    def _next(self) -> None:
        if len(self.answers) == len(self.requests):
            self._transport.close()
            if not self.done.done():
                self.done.set_result(None)
            return
        self._started = time.perf_counter()
        self._transport.write(self.requests[len(self.answers)])

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        at = self._buffer.find(b"content-length: ") + 16
        length = int(self._buffer[at : self._buffer.find(b"\r\n", at)])
        if len(self._buffer) < end + 4 + length:
            return
        now = time.perf_counter()
        body = self._buffer[end + 4 : end + 4 + length] if self._keep else b""
        self.answers.append(Answer(int(self._buffer[9:12]), body, now, now - self._started))
        self._buffer = self._buffer[end + 4 + length :]
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))


async def load(port: int, batches: Sequence[Sequence[bytes]], *, keep_bodies: bool = True) -> list[list[Answer]]:
    """Send each batch over a connection of its own, all at once, and return the answers in order.

    A connection that the server closes keeps what it got; the others go on.
    """
    loop = asyncio.get_running_loop()
    filled = [[one.replace(b"PORT", str(port).encode(), 1) for one in batch] for batch in batches]
    protocols = [_Connection(batch, keep_bodies) for batch in filled]
    await asyncio.gather(*(loop.create_connection(lambda p=p: p, "127.0.0.1", port) for p in protocols))
    await asyncio.gather(*(protocol.done for protocol in protocols), return_exceptions=True)
    return [protocol.answers for protocol in protocols]


def spread(requests: Sequence[bytes], connections: int) -> list[list[bytes]]:
    """Deal requests to connections in turn."""
    return [list(requests[start::connections]) for start in range(connections)]
