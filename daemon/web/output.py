"""Output of a process as Server-Sent Events: a frame a line, its id the byte offset after it."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import msgspec

from daemon.domain.errors import DaemonError
from daemon.domain.lines import Line
from daemon.services.ports import OutputReader
from daemon.web.open_stream import KEEP_ALIVE, Admits, Hub, OpenStream

_GONE = b": output gone\n\n"
_is_json = msgspec.json.Decoder(msgspec.Raw).decode


def frames(lines: Sequence[Line]) -> bytes:
    """Return lines as Server-Sent Events carry them (WHATWG HTML, section 9.2.5)."""
    return b"".join(map(_frame, lines))


def _frame(line: Line) -> bytes:
    return b"id: %d\nevent: %b\n%b\n" % (line.end, _kind(line), _data(line.data))


def _kind(line: Line) -> bytes:
    if line.part:
        return b"piece" if line.more else b"last-piece"
    if line.data[:1] not in {b"{", b"["}:
        return b"text"
    try:
        _is_json(line.data)
    except msgspec.MsgspecError:
        return b"text"
    return b"json"


def _data(data: bytes) -> bytes:
    """Return data lines; a carriage return inside a line would end it, and what is no UTF-8 the whole stream."""
    text = data.removesuffix(b"\r")
    if not text.isascii():
        text = text.decode(errors="replace").encode()
    if b"\r" in text:
        return b"".join(b"data: %b\n" % part for part in text.split(b"\r"))
    return b"data: %b\n" % text


class OutputStream(OpenStream):
    """An open stream of one process's output.

    Args:
        hub: looks at every stream from time to time.
        reader: where lines come from.
        offset: at which it begins.
        group: the session's id, for a reader with its token; None for the owner.
        admits: says at every look whether the reader may still read.
    """

    def __init__(self, hub: Hub, reader: OutputReader, offset: int, *, group: str | None, admits: Admits) -> None:
        super().__init__(hub, group, admits)
        self._reader = reader
        self._offset = offset

    def enter(self) -> None:
        """Register, or let go of everything."""
        try:
            super().enter()
        except DaemonError:
            self._reader.close()
            raise

    def leave(self) -> None:
        """Let go of everything."""
        self._reader.close()
        super().leave()

    def greeting(self) -> bytes:
        """Return the id that lets a client that has seen no line yet resume without a gap."""
        return b": connected\nretry: 1000\nid: %d\n\n" % self._offset

    async def pump(self, send: Any) -> None:
        """Send lines until there will be no more of them."""
        reading: asyncio.Future[list[Line]] | None = None
        try:
            while not self._gone and self._last_words is None:
                self._news.clear()
                reading = reading or asyncio.ensure_future(self._reader.next())
                await self._either(reading)
                if reading.done():
                    lines, reading = reading.result(), None
                    if not lines:
                        return
                    await self._send(send, frames(lines))
                    # Sending need not wait, and who has much to catch up with must let others have their turn.
                    await asyncio.sleep(0)
                elif self._silent:
                    await self._send(send, KEEP_ALIVE)
        except DaemonError:
            # What comes next was freed: who resumes is told what is kept.
            self._last_words = self._last_words or _GONE
        finally:
            if reading is not None:
                reading.cancel()
                with contextlib.suppress(asyncio.CancelledError, DaemonError):
                    await reading

    async def _either(self, reading: "asyncio.Future[list[Line]]") -> None:
        """Wait for lines, or for the stream to be woken."""
        news = asyncio.ensure_future(self._news.wait())
        either: set[asyncio.Future[Any]] = {reading, news}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        news.cancel()
