"""Reading a process's output line by line while it is written."""

import asyncio

from daemon.domain.lines import Line
from daemon.supervision.lines import Cutter
from daemon.supervision.output import Gone, OutputFile

STEP_BYTES = 65_536
"""Bytes that are read at once."""

_STEP_LINES = 2_000
"""Lines that are made at once: lines without content are made slower than they are read."""


class Follower:
    """Reads one file's lines from an offset on; one task at a time calls `next`.

    Its memory is bounded by one line and one step. A call of `next` that is cancelled loses nothing.

    Args:
        file: what is read.
        offset: where to begin, as a byte offset.
    """

    def __init__(self, file: OutputFile, offset: int) -> None:
        self._file = file
        self._cutter = Cutter(offset)
        self._begun = False
        self._ended = False
        # Set while there may be something to read.
        self._news = asyncio.Event()
        self._news.set()

    @property
    def position(self) -> int:
        """Return the byte offset after the last line that was returned."""
        return self._cutter.end

    def wake(self) -> None:
        """Let a reader that waits look into the file."""
        self._news.set()

    def end(self) -> None:
        """Tell that nobody writes any more: what is in the file now is the rest of it."""
        self._ended = True
        self._news.set()

    async def next(self, limit: int = STEP_BYTES) -> list[Line]:
        """Wait until there are lines and return them; other tasks have their turn before.

        Args:
            limit: bytes that are read at once.

        Returns:
            Nothing after the end.

        Raises:
            Gone: the next bytes are not in the file any more.
            OSError: it cannot be read.
        """
        while True:
            await self._news.wait()
            await asyncio.sleep(0)
            ended = self._ended  # before the read, which then sees all that was written until then
            chunk = await self._step(limit)
            over = ended and not chunk
            lines = self._cutter.flush() if over else self._cutter.feed(chunk)
            if lines or over:
                return lines

    async def _step(self, limit: int) -> bytes:
        """Read on; the news stay while something may be left, and for ever after the end."""
        self._news.clear()
        try:
            chunk = await self._read(limit)
        except BaseException:
            self._news.set()
            raise
        if chunk or self._ended:
            self._news.set()
        return chunk

    async def _read(self, limit: int) -> bytes:
        at = self._cutter.end + self._cutter.pending
        if not self._begun:
            await self._begin(at)
        chunk = self._file.read_now(at, limit)
        if chunk is None:
            chunk = await asyncio.to_thread(self._file.read, at, limit)
        while chunk.count(b"\n") > _STEP_LINES:
            chunk = chunk[: len(chunk) // 2]  # the rest is read again, which costs less than to keep it
        return chunk

    async def _begin(self, offset: int) -> None:
        first_kept = await asyncio.to_thread(self._file.first_kept)
        if offset < first_kept:
            raise Gone(first_kept)
        self._begun = True
