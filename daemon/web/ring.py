"""The newest events of a stream, encoded once for all of its readers."""

from bisect import bisect_right

import msgspec

from daemon.domain.events import Event

CHUNK = 65_536
"""Bytes from which on nothing is added to what is handed out at once; a connection's buffer is about as large."""
_REMEMBERED_CHUNKS = 16

_encode = msgspec.json.Encoder().encode


def frame(event: Event) -> bytes:
    """Return an event as Server-Sent Events carry it (WHATWG HTML, section 9.2.5)."""
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (event.seq, event.type.encode(), _encode(event))


class Ring:
    """A bounded memory of frames, read by position; what is older than it holds is in the database.

    Args:
        floor: every event of the stream after this sequence number is added.
        events: kept at most.
        size: bytes kept at most.
    """

    def __init__(self, floor: int, *, events: int, size: int) -> None:
        self.floor = floor
        self.bytes = 0
        self._events = events
        self._size = size
        self._seqs: list[int] = []
        self._frames: list[bytes] = []
        self._chunks: dict[int, tuple[int, bytes]] = {}

    def __len__(self) -> int:
        return len(self._seqs)

    def add(self, seq: int, encoded: bytes) -> None:
        """Append an event's frame; the oldest ones go where there are too many."""
        self._seqs.append(seq)
        self._frames.append(encoded)
        self.bytes += len(encoded)
        self._chunks.clear()
        while len(self._seqs) > self._events or self.bytes > self._size:
            self._drop()

    def _drop(self) -> None:
        # A quarter at a time: what is left of a list moves when its beginning is removed.
        count = len(self._seqs) // 4 + 1
        self.floor = self._seqs[count - 1]
        self.bytes -= sum(map(len, self._frames[:count]))
        del self._seqs[:count], self._frames[:count]

    def restart(self, floor: int) -> None:
        """Forget everything up to `floor`: something before it was never added."""
        self.floor = floor
        self.bytes = 0
        for kept in (self._seqs, self._frames, self._chunks):
            kept.clear()

    def after(self, position: int) -> tuple[int, bytes] | None:
        """Return the next chunk after a position and the position it leads to; None if that is not in memory any more.

        The chunk is empty for who has read everything. Readers at one position share one chunk.
        """
        if position < self.floor:
            return None
        known = self._chunks.get(position)
        if known is None:
            if len(self._chunks) >= _REMEMBERED_CHUNKS:
                self._chunks.clear()
            known = self._chunks[position] = self._join(position)
        return known

    def _join(self, position: int) -> tuple[int, bytes]:
        start = end = bisect_right(self._seqs, position)
        size = 0
        while end < len(self._frames) and size < CHUNK:
            size += len(self._frames[end])
            end += 1
        return (self._seqs[end - 1] if end > start else position), b"".join(self._frames[start:end])
