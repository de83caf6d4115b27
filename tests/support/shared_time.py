"""Time that several processes share and a test moves, in a file that all of them map."""

import mmap
import os
from pathlib import Path

from tests.support.live import START

_WALL, _MONO, _FIRST = 0, 1, 2
_SIZE = 4096


class SharedTime:
    """Wall and monotonic seconds, and numbers by which processes tell how far they are.

    Args:
        path: of the file; it is made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        fresh = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(descriptor, _SIZE)
        self._map = mmap.mmap(descriptor, _SIZE)
        os.close(descriptor)
        self._cells = memoryview(self._map).cast("d")
        if fresh:
            self._cells[_MONO] = 1000.0
            self._cells[_WALL] = START

    def wall(self) -> float:
        """Return the time of day."""
        return self._cells[_WALL]

    def mono(self) -> float:
        """Return seconds that only grow."""
        return self._cells[_MONO]

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._cells[_MONO] += seconds
        self._cells[_WALL] += seconds

    def tell(self, who: int, number: float) -> None:
        """Say how far somebody is."""
        self._cells[_FIRST + who] = number

    def told(self, who: int) -> float:
        """Return how far somebody is."""
        return self._cells[_FIRST + who]
