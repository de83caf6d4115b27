"""What every fake service has: a real HTTP server in a thread, what it received, and scripted faults."""

import json
import random
import socket
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from tests.support.daemon_process import wait_for


@dataclass(frozen=True)
class Received:
    """A request as it came.

    Args:
        method: in capitals.
        path: without the query.
        query: its last values by name.
        headers: by name in small letters.
        body: as sent.
        at: monotonic seconds.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    at: float

    def json(self) -> Any:
        """Return the body as JSON.

        Raises:
            ValueError: it is none.
        """
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """What a service answers; a body that is a generator is sent in chunks as they come."""

    status: int
    body: bytes | Generator[bytes, None, None] = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def json_reply(status: int, value: Any, headers: Mapping[str, str] | None = None) -> Reply:
    """Return an answer with a JSON body."""
    body = json.dumps(value, ensure_ascii=False).encode()
    return Reply(status, body, {"Content-Type": "application/json", **(headers or {})})


@dataclass(frozen=True)
class Status:
    """Answers with this instead of processing the message."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class TooMany:
    """Answers 429 in the service's own form; `where` says which part tells the seconds to wait."""

    seconds: float
    where: Literal["header", "body", "both"] = "both"


@dataclass(frozen=True)
class Timeout:
    """Holds the answer this long: after processing the message or, with `before`, without, and then hangs up."""

    seconds: float
    before: bool = False


@dataclass(frozen=True)
class Drop:
    """Closes the connection without an answer: before processing the message, or after it."""

    before: bool = True


@dataclass(frozen=True)
class Garbage:
    """Answers 200 with what is not JSON, as a captive portal does; the message is not processed."""


Fault = Status | TooMany | Timeout | Drop | Garbage

ANY_FAULT: Sequence[Fault] = (
    Status(500),
    Status(502, {"Content-Type": "text/html"}, b"<html>Bad Gateway</html>"),
    Status(503, {"Retry-After": "1"}),
    TooMany(1),
    TooMany(1, "header"),
    Drop(before=True),
    Drop(before=False),
    Garbage(),
)


class ClosedError(Exception):
    """The connection is to be closed without (the rest of) an answer."""


class FakeService(ABC):
    """A service at `url` while its `with` block lasts.

    Attributes:
        requests: all that was received, in order.
        faults: what the next requests that send something will meet, one each.
        drawn: the faults that happened.
        errors: what broke in the service itself; the end of the block raises the first.
        changed: the lock over all state, notified when it changes.
    """

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.faults: deque[Fault] = deque()
        self.drawn: list[Fault] = []
        self.errors: list[BaseException] = []
        self.changed = threading.Condition(threading.RLock())
        self.closing = threading.Event()
        self._random: Callable[[], Fault | None] = lambda: None

    def __enter__(self) -> Self:
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name=type(self).__name__
        )
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.closing.set()
        with self.changed:
            self.changed.notify_all()
        self._server.shutdown()
        self._thread.join()
        self._server.hang_up()
        self._server.server_close()
        if error is None and self.errors:
            raise self.errors[0]

    def script(self, *faults: Fault) -> None:
        """Let the next requests that send something meet these, one each, in order."""
        with self.changed:
            self.faults.extend(faults)

    def random_faults(self, rng: random.Random, rate: float, kinds: Sequence[Fault] = ANY_FAULT) -> None:
        """Let each request that sends something meet one of `kinds` with probability `rate`; 0 ends it."""
        self._random = lambda: rng.choice(kinds) if rng.random() < rate else None

    def wait(self, fact: Callable[[], Any], seconds: float = 20) -> Any:
        """Return what `fact` returns once that is true; fail after the deadline."""
        return wait_for(fact, seconds)

    def serve(self, request: Received) -> Reply:
        """Answer a request, or do what the fault says.

        Raises:
            ClosedError: the connection is to be closed.
        """
        with self.changed:
            self.requests.append(request)
            fault = self._draw() if self.sends(request) else None
            self.changed.notify_all()
        if fault is None:
            return self.answer(request)
        return self._meet(fault, request)

    def _draw(self) -> Fault | None:
        fault = self.faults.popleft() if self.faults else self._random()
        if fault is not None:
            self.drawn.append(fault)
        return fault

    def _meet(self, fault: Fault, request: Received) -> Reply:
        match fault:
            case Status(code, headers, body):
                return Reply(code, body, headers)
            case TooMany():
                return self.too_many(fault)
            case Garbage():
                return Reply(200, b"<html>Sign in to the network</html>", {"Content-Type": "text/html"})
            case Timeout(seconds, before):
                reply = None if before else self.answer(request)
                if not self.closing.wait(seconds) and reply is not None:
                    return reply
            case Drop(before=False):
                self.answer(request)
        raise ClosedError

    @abstractmethod
    def sends(self, request: Received) -> bool:
        """Return whether a request sends something, so that it may meet a fault."""

    @abstractmethod
    def too_many(self, fault: TooMany) -> Reply:
        """Return the service's own 429."""

    @abstractmethod
    def answer(self, request: Received) -> Reply:
        """Process a request.

        Raises:
            ClosedError: the connection is to be closed.
        """


class _Server(ThreadingHTTPServer):
    """Knows its connections, so that it can end them."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, service: FakeService) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.service = service
        self._connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self.service.changed:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self.service.changed:
            self._connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Wake every thread that reads from an idle connection."""
        with self.service.changed:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # the client was first

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, OSError):  # a client that was killed breaks its connections
            self.service.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    """Reads requests and writes replies."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _handle(self) -> None:
        try:
            self._write(self.server.service.serve(self._read()))
        except ClosedError:
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815 (the base class names them)

    def _read(self) -> Received:
        if "transfer-encoding" in self.headers:
            raise ValueError("a request in chunks")
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(length)
        if len(body) < length:
            raise ClosedError
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        headers = {name.lower(): value for name, value in self.headers.items()}
        return Received(self.command, parts.path, query, headers, body, time.monotonic())

    def _write(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if isinstance(reply.body, bytes):
            if reply.status != 204:
                self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with closing(reply.body) as chunks:
            for chunk in chunks:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class names it)
        """Say nothing on the test's standard error."""
