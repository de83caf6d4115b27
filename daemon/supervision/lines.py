"""Cutting a stream of bytes into lines that know their offsets."""

from daemon.domain.lines import Line

LINE_LIMIT = 1 << 20
"""Bytes of a line without its newline; a longer one is cut into pieces of this size."""


class Cutter:
    """Cuts what it is fed into lines, however the bytes were divided; it holds an unfinished line up to its limit.

    Args:
        start: the offset of the first byte that it will be fed; in the middle of a line the rest counts as a line.
    """

    def __init__(self, start: int) -> None:
        self.end = start
        """The offset after the last line that was given out."""
        # An array grows in place: who writes byte by byte must not cost a copy of the line each time.
        self._held = bytearray()
        self._parts = 0

    @property
    def pending(self) -> int:
        """Return how many bytes after `end` are held because their line is not finished."""
        return len(self._held)

    def feed(self, chunk: bytes) -> list[Line]:
        """Take the next bytes and return what they finish.

        Args:
            chunk: any number of bytes that follow the ones before without a gap.

        Returns:
            Lines in order; of a long line each piece as soon as a byte of the line follows it.
        """
        if len(chunk) > LINE_LIMIT:
            slices = range(0, len(chunk), LINE_LIMIT)
            return [line for at in slices for line in self.feed(chunk[at : at + LINE_LIMIT])]
        first, *others = chunk.split(b"\n")
        self._held += first
        lines = self._pieces() if len(self._held) > LINE_LIMIT else []
        if others:
            lines.append(self._finish(newline=1))
            self._held += others.pop()
            end = self.end
            for data in others:
                end += len(data) + 1
                lines.append(Line(end, data))
            self.end = end
        return lines

    def flush(self) -> list[Line]:
        """Return what is held as a last line without a newline, for a stream that has ended; nothing if none is."""
        return [self._finish(newline=0)] if self._held else []

    def _pieces(self) -> list[Line]:
        """Cut pieces off an unfinished line for as long as a byte is left for the next."""
        lines = []
        while len(self._held) > LINE_LIMIT:
            self.end += LINE_LIMIT
            self._parts += 1
            lines.append(Line(self.end, bytes(self._held[:LINE_LIMIT]), self._parts, more=True))
            del self._held[:LINE_LIMIT]
        return lines

    def _finish(self, *, newline: int) -> Line:
        self.end += len(self._held) + newline
        line = Line(self.end, bytes(self._held), self._parts + 1 if self._parts else 0)
        self._held.clear()
        self._parts = 0
        return line
