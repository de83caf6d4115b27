"""What a writer's commits took."""

from daemon.histogram import Histogram

SIZES = (1, 4, 16, 64, 256)
"""Bounds of the number of changes in a commit; the last one is as many as share one."""


class Commits:
    """Counts commits from the start of the daemon on."""

    def __init__(self) -> None:
        self.sizes = Histogram(SIZES)
        """Changes that shared a commit."""
        self.seconds = Histogram()
        """From the beginning of a transaction to the end of its commit."""
        self.failed = 0
        """Batches of which nothing was stored."""

    def note(self, changes: int, seconds: float) -> None:
        """Count a commit."""
        self.sizes.observe(changes)
        self.seconds.observe(seconds)
