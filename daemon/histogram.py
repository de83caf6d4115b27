"""Counts of values by how large they are: plain numbers, for whoever shows them."""

from bisect import bisect_left
from collections.abc import Sequence

SECONDS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5)
"""Bounds of durations, few and wide apart: every one is a number for each thing that is measured."""


class Histogram:
    """How many values there were up to each bound, and their sum. To observe one costs less than a microsecond.

    Args:
        bounds: ascending; a value that equals a bound is within it.
    """

    __slots__ = ("_counts", "bounds", "total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = bounds
        self.total = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[int]:
        """Return how many values were within each bound, and last how many there were at all."""
        seen, counts = 0, list[int]()
        for count in self._counts:
            seen += count
            counts.append(seen)
        return counts
