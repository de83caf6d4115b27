"""The socket on which systemd hears from its services (sd_notify(3))."""

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

Message = dict[str, str]


class NotifySocket:
    """A bound one, of which a thread takes in what is told, as fast as systemd would.

    Args:
        address: as in NOTIFY_SOCKET: a path, or `@` and an abstract name.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._told: queue.Queue[Message] = queue.Queue()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._thread = threading.Thread(target=self._take_in)
        self._thread.start()

    def _take_in(self) -> None:
        while data := self._socket.recv(65_536):
            self._told.put(dict(line.split("=", 1) for line in data.decode().splitlines()))

    def close(self) -> None:
        """Listen no more."""
        self._socket.shutdown(socket.SHUT_RD)
        self._thread.join()
        self._socket.close()

    def heard(self, seconds: float) -> Message | None:
        """Return the next message; None where none comes in time."""
        try:
            return self._told.get(timeout=seconds)
        except queue.Empty:
            return None

    def until(self, name: str, seconds: float = 20) -> list[Message]:
        """Return all messages up to the first that has an assignment of this name."""
        deadline, found = time.monotonic() + seconds, list[Message]()
        while not found or name not in found[-1]:
            message = self.heard(max(0.001, deadline - time.monotonic()))
            assert message is not None, f"{name} was not told in time, but {found}"
            found.append(message)
        return found

    def forget(self) -> None:
        """Forget what was told by now."""
        while not self._told.empty():
            self._told.get()


@contextlib.contextmanager
def notify_socket(address: Path | str) -> Iterator[NotifySocket]:
    """Listen until the end of the block."""
    made = NotifySocket(str(address))
    try:
        yield made
    finally:
        made.close()
