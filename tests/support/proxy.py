"""A TCP proxy in front of a PostgreSQL server that can swallow what a daemon is told, and nothing else."""

import contextlib
import socket
import threading
from urllib.parse import urlsplit, urlunsplit


class Proxy:
    """Forwards connections.

    Args:
        url: of the server.

    Attributes:
        deaf: connections on which somebody listens for notifications stay open and hang.
        uncertain: a connection ends when the server says that it has committed.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._listening = socket.create_server(("127.0.0.1", 0))
        user, at, _ = parts.netloc.rpartition("@")
        self.url = urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{self._listening.getsockname()[1]}"))
        self.deaf = False
        self.uncertain = False
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(self._server)
                for one in (client, server):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open += [client, server]
                listens = threading.Event()
                for way in ((client, server), (server, client)):
                    threading.Thread(target=self._forward, args=(*way, server, listens), daemon=True).start()

    def _forward(
        self, source: socket.socket, target: socket.socket, server: socket.socket, listens: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if b"LISTEN " in data:
                    listens.set()
                if self.uncertain and source is server and b"COMMIT\0" in data:
                    break
                if not (self.deaf and listens.is_set()):
                    target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End everything."""
        for one in (self._listening, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
