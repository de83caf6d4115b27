"""Readers of output, for as long as there will be any: woken by the watcher, ended with the session."""

import contextlib
from collections.abc import Callable, Iterator

from daemon.domain.errors import OUTPUT_GONE, STORAGE_UNAVAILABLE, DaemonError, invalid
from daemon.domain.lines import Line
from daemon.supervision.follow import Follower
from daemon.supervision.output import Gone, OutputFile


def gone(first_kept: int) -> DaemonError:
    """Return what a reader is told of output that was freed."""
    return DaemonError(OUTPUT_GONE, details={"firstOffset": first_kept})


@contextlib.contextmanager
def readable() -> Iterator[None]:
    """Tell whoever reads meanwhile that the output cannot be read, where the system says so.

    Raises:
        DaemonError: STORAGE_UNAVAILABLE.
    """
    try:
        yield
    except OSError as error:
        raise DaemonError(STORAGE_UNAVAILABLE, f"The output cannot be read: {error.strerror}.") from error


def check_offset(file: OutputFile, offset: int) -> None:
    """Refuse an offset at which there is nothing to begin.

    Raises:
        DaemonError: OUTPUT_GONE; VALIDATION_ERROR where the output is not that long.
    """
    if offset > (size := file.size()):
        raise invalid(("offset", f"must not be larger than the output, {size} bytes"))
    if offset < (first := file.first_kept()):
        raise gone(first)


class Reader:
    """Reads one stream of one session.

    Args:
        file: the stream.
        offset: where it begins.
        ended: whether nothing will be written any more.
        closed: called once when it is let go of.
    """

    def __init__(self, file: OutputFile, offset: int, *, ended: bool, closed: Callable[["Reader"], None]) -> None:
        self._follower = Follower(file, offset)
        self._closed = closed
        if ended:
            self._follower.end()

    async def next(self) -> list[Line]:
        """Return the next lines once there are any; nothing: there will be no more.

        Raises:
            DaemonError: OUTPUT_GONE.
        """
        try:
            with readable():
                return await self._follower.next()
        except Gone as error:
            raise gone(error.first_kept) from None

    def wake(self) -> None:
        """Look for more output."""
        self._follower.wake()

    def end(self) -> None:
        """Note that nothing will be written any more."""
        self._follower.end()

    def close(self) -> None:
        """Let go of it."""
        self._closed(self)
