"""A client of event streams: reads one in a thread and keeps what it saw."""

import http.client
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.support.daemon_process import wait_for


class Seen(NamedTuple):
    """One event of a stream: its id, its type and its data, as text."""

    id: int
    type: str
    data: str

    @property
    def event(self) -> dict[str, Any]:
        """Return the data as an object."""
        found: dict[str, Any] = json.loads(self.data)
        return found


class _Unix(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(str(self._path))


class Follower:
    """One open stream; `close` hangs up.

    Args:
        where: the daemon's URL, or the path of its socket.
        path: the route.
        headers: credential, `Last-Event-ID` and others; `_` stands for `-`.
    """

    def __init__(self, where: str | Path, path: str = "/v1/owner/events", **headers: str) -> None:
        host = urlsplit(where).netloc if isinstance(where, str) else ""
        self._connection = http.client.HTTPConnection(host, timeout=30) if host else _Unix(Path(where))
        sent = {"Accept": "text/event-stream", **{key.replace("_", "-"): text for key, text in headers.items()}}
        self._connection.request("GET", path, headers=sent)
        assert self._connection.sock is not None
        self._socket = self._connection.sock
        self.answer = self._connection.getresponse()
        self.status = self.answer.status
        self.events: list[Seen] = []
        self.comments: list[str] = []
        self.last_id = int(headers.get("Last_Event_ID", 0))
        self.ended_at: float | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        if self.status == 200:
            self._thread.start()
            self.wait(lambda: "connected" in self.comments)

    def _read(self) -> None:
        block: dict[str, str] = {}
        try:
            while line := self.answer.readline():
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "" and value:
                    self.comments.append(value)
                elif name:
                    block[name] = value
                else:
                    self._dispatch(block)
                    block = {}
        except (OSError, http.client.HTTPException, ValueError, AttributeError):
            pass  # the connection broke, or `close` was called
        self.ended_at = time.monotonic()

    def _dispatch(self, block: dict[str, str]) -> None:
        self.last_id = int(block.get("id", self.last_id))
        if "data" in block:
            self.events.append(Seen(int(block["id"]), block["event"], block["data"]))

    @property
    def ids(self) -> list[int]:
        """Return the ids that were seen, in order."""
        return [seen.id for seen in self.events]

    @property
    def types(self) -> list[str]:
        """Return the types that were seen, in order."""
        return [seen.type for seen in self.events]

    def wait(self, fact: Any, seconds: float = 10) -> Any:
        """Wait until a fact is true."""
        return wait_for(fact, seconds)

    def wait_end(self, seconds: float = 10) -> float:
        """Wait for the end of the stream and return when it came (monotonic seconds)."""
        return float(self.wait(lambda: self.ended_at, seconds))

    def close(self) -> None:
        """Hang up."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._connection.close()
