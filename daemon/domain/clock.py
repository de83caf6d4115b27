"""The domain clock: wall time that never runs backwards."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

RESET_THRESHOLD = 86_400
"""Seconds: a step back larger than this is followed; a smaller one is waited out."""


def stamp(moment: int) -> str:
    """Return Unix seconds as they stand in names of files: UTC, `yyyymmddThhmmssZ`."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y%m%dT%H%M%SZ")


class Clock(Protocol):
    """What every rule takes its time from."""

    def now(self) -> int:
        """Return the domain time in Unix seconds."""
        ...

    def monotonic(self) -> float:
        """Return seconds that only ever grow, for windows within this process."""
        ...

    def held_back(self) -> int:
        """Return by how many seconds the domain time is ahead of the wall."""
        ...

    def take_reset(self) -> bool:
        """Return, once, whether the clock followed a large step back."""
        ...

    def adjust(self, offset: float) -> None:
        """Take the time of a server whose clock is so many seconds ahead of this machine's."""
        ...


class DomainClock:
    """Wall time with a high-water mark.

    A step back is waited out (the mark is held), so that it neither revives an expired session nor
    ends a living one; a step back of more than a day is taken for the correction of a wrong clock and
    followed. A step forward counts at once.

    Args:
        wall: returns wall time in Unix seconds.
        monotonic: returns monotonic seconds.
    """

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._offset = 0.0
        self._high = int(wall())
        self._reset = False

    def start_from(self, newest: int) -> None:
        """Take the newest stored event's time (Unix seconds) for the high-water mark."""
        self._high = max(newest, 0)
        self.now()

    def adjust(self, offset: float) -> None:
        """Take the time of a server whose clock is so many seconds ahead of the wall.

        Daemons that share a server share its time; to the mark a new offset is a step of the wall.
        """
        self._offset = offset

    def _seconds(self) -> int:
        return int(self._wall() + self._offset)

    def now(self) -> int:
        """Return the domain time in Unix seconds."""
        wall = self._seconds()
        if wall >= self._high:
            self._high = wall
        elif self._high - wall > RESET_THRESHOLD:
            self._high = wall
            self._reset = True
        return self._high

    def monotonic(self) -> float:
        """Return monotonic seconds."""
        return self._monotonic()

    def held_back(self) -> int:
        """Return by how many seconds the domain time is ahead of the wall: 0 unless the wall stepped back."""
        return max(0, self.now() - self._seconds())

    def take_reset(self) -> bool:
        """Return, once, whether the clock followed a step back larger than a day since the last call."""
        self.now()
        taken, self._reset = self._reset, False
        return taken
