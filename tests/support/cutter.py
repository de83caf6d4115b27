"""A way to a daemon's socket on which answers get lost: the daemon has done what it was asked, and nobody is told."""

import contextlib
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path

Drop = Callable[[bytes], bool]
"""Says of a request, by its first bytes, whether its answer gets lost."""


def whole_message(source: socket.socket) -> bytes:
    """Return a request or an answer, with its body; empty where the connection is at its end."""
    data = b""
    while (length := _length(data)) is None or len(data) < length:
        if not (chunk := source.recv(65_536)):
            return b""
        data += chunk
    return data


def _length(data: bytes) -> int | None:
    head, end, _ = data.partition(b"\r\n\r\n")
    if not end:
        return None
    found = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
    return len(head) + len(end) + (int(found[1]) if found else 0)


class Cutter:
    """Forwards connections to a unix socket from one of its own, and from TCP.

    Args:
        target: the daemon's socket.
        path: its own.

    Attributes:
        drop: which answers get lost; the connection ends instead.
        dropped: how many did.
        url: its address over TCP.
    """

    def __init__(self, target: Path, path: Path) -> None:
        self.drop: Drop = lambda _request: False
        self.dropped = 0
        self.path = path
        self._target = str(target)
        self._unix = socket.socket(socket.AF_UNIX)
        self._unix.bind(str(path))
        self._unix.listen(128)
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._tcp.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        for listening in (self._unix, self._tcp):
            threading.Thread(target=self._accept, args=(listening,), daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
            self._open |= {client, server}
            server.connect(self._target)
            while request := whole_message(client):
                server.sendall(request)
                answer = whole_message(server)
                if not answer or self.drop(request):
                    self.dropped += bool(answer)
                    break
                client.sendall(answer)
        self._open -= {client, server}

    def close(self) -> None:
        """End everything."""
        for one in (self._unix, self._tcp, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
