"""Streams of Server-Sent Events that are followed across restarts of the daemon."""

import http.client
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

import msgspec

from daemon.cli.client import Client
from daemon.cli.connection import Address, locator
from daemon.cli.credentials import Owner
from daemon.cli.failure import Failure, Passing
from daemon.cli.output import note

T = TypeVar("T")

EVENTS = "/v1/owner/events"

_SILENCE = 45.0
"""Seconds without a byte after which the connection is lost: the daemon is never silent for half of it."""
_WAITS = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds before each attempt to come back; the last one is for all that follow."""


class Frame(msgspec.Struct, frozen=True):
    """One block of a stream: the position after it, and what it tells, if it tells something."""

    id: int
    event: str
    data: bytes | None


class Stream(ABC, Generic[T]):
    """One stream, from a position on; it can be read in any thread.

    Args:
        path: quoted, with its query.
        position: the id of the last frame that is known; None: begin with what happens from now on.
        owner: who opens it.
    """

    def __init__(self, path: str, position: int | None, owner: Owner) -> None:
        self.path = path
        self.position = position
        self._owner = owner
        self._locate: Callable[[], Address] = locator()

    @abstractmethod
    def read(self, client: Client, frames: list[Frame]) -> Iterable[T]:
        """Return what frames that came together tell, and move the position behind it."""

    def is_over(self, client: Client) -> bool:
        """Return whether nothing will come any more, although the stream ended in good order."""
        return False

    def goes_on(self, refused: Failure) -> bool:
        """Return whether to try again at once, from the position as it is now, although the API has refused."""
        return False

    def __iter__(self) -> Iterator[T]:
        """Yield what is told; where the connection is lost, go on after the last that was seen.

        Raises:
            Failure: the first attempt failed, or the API refuses.
        """
        failed, connected = 0, False
        while True:
            try:
                # Anew each time: the daemon may come back at another address.
                client = Client(self._locate(), owner=self._owner, timeout=_SILENCE)
                with client.stream(self.path, self._resuming()) as response:
                    if failed:
                        note("connected again")
                    connected, failed = True, 0
                    for frames in _batches(response):
                        yield from self.read(client, frames)
                if self.is_over(client):
                    return
                reason = "the stream has ended"
            except Passing as failure:
                if not connected:
                    raise
                reason = str(failure)
            except Failure as failure:
                if not self.goes_on(failure):
                    raise
                continue
            if not failed:
                note(f"{reason}; trying again until the daemon is back")
            time.sleep(_WAITS[min(failed, len(_WAITS) - 1)])
            failed += 1

    def _resuming(self) -> dict[str, str]:
        return {} if self.position is None else {"Last-Event-ID": str(self.position)}


def newest_event(client: Client) -> int:
    """Return the newest event's number: a stream begins with it."""
    with client.stream(EVENTS, {}) as response:
        for frames in _batches(response):
            return frames[0].id
    raise Passing("the stream has ended")


def _batches(response: http.client.HTTPResponse) -> Iterator[list[Frame]]:
    """Yield the blocks of a stream, those that came together together (WHATWG HTML, section 9.2.6).

    Raises:
        Passing: it broke off.
    """
    rest = b""
    while chunk := _chunk(response):
        *blocks, rest = (rest + chunk).split(b"\n\n")
        frames = [frame for frame in map(_frame, blocks) if frame is not None]
        if frames:
            yield frames


def _chunk(response: http.client.HTTPResponse) -> bytes:
    """Return the next bytes; none at an end in good order, which the last chunk of the body is (RFC 9112, 7.1)."""
    try:
        return response.read1(1 << 20)
    except (OSError, http.client.HTTPException):
        raise Passing("the connection was lost") from None


def _frame(block: bytes) -> Frame | None:
    """Return what a block says; None for a comment. Its data lines were parted at carriage returns."""
    number, event, data = None, "", list[bytes]()
    for line in block.split(b"\n"):
        name, _, value = line.partition(b": ")
        if name == b"id":
            number = int(value)
        elif name == b"event":
            event = value.decode()
        elif name == b"data":
            data.append(value)
    return None if number is None else Frame(number, event, b"\r".join(data) if data else None)
