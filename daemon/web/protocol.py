"""uvicorn's HTTP/1.1 protocol with what it lacks: limits, timers, problem documents, peer credentials."""

import asyncio
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from daemon.domain import errors
from daemon.domain.errors import DaemonError, ErrorKind
from daemon.log import Log
from daemon.web.envelope import SECURITY_HEADERS, new_request_id
from daemon.web.limits import BROKEN, TRANSPORT
from daemon.web.meter import RequestMeter
from daemon.web.problems import render

PEER = "daemon.peer"
"""Scope key of the Peer that is connected over the unix socket."""
_LINE_OVERHEAD = 4
"""Bytes of a header line that are neither name nor value: colon, space, CR, LF."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one connection may take.

    Args:
        target: bytes of the request target (RFC 9112, section 3, asks for at least 8000).
        headers: bytes of all headers of a request.
        head_seconds: until the head of a request must be there, from its first byte or the connection's start.
        body_seconds: until its body must be there.
        idle_seconds: until a connection without a request is closed.
        connections: open at the same time.
    """

    target: int = 8_192
    headers: int = 16_384
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    idle_seconds: int = 60
    connections: int = 1_000


class Peer(msgspec.Struct, frozen=True):
    """The process at the other end of the unix socket, as the kernel names it."""

    pid: int
    uid: int


class _Refusal(Exception):  # noqa: N818 (a signal through the parser, which turns any exception into its own)
    """Ends parsing inside a callback."""


class Protocol(HttpToolsProtocol):
    """One connection.

    Args:
        limits: what it may take.
        log: for the `http.request` line of a request that never reaches the app.
        on_refused: called when the connection is one too many.
        meter: counts what never reaches the app, if anybody does.
        uvicorn: the arguments that uvicorn passes.
    """

    def __init__(
        self,
        *,
        limits: Limits,
        log: Log,
        on_refused: Callable[[], None],
        meter: RequestMeter | None = None,
        **uvicorn: Any,
    ) -> None:
        super().__init__(**uvicorn)
        self._limits = limits
        self._log = log
        self._on_refused = on_refused
        self._meter = meter
        self._peer: Peer | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = False
        self._in_body = False
        self._head_size = 0
        self._unparsed = 0
        self._reason: ErrorKind | None = None
        self._refusal: ErrorKind | None = None

    # --- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the head timer; a connection above the limit is closed at once."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self._on_refused()
            transport.abort()
            return
        self._peer = _peer_of(transport.get_extra_info("socket"))
        self._arm(self._limits.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._disarm()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse; refuse what is malformed, and see to it that what has begun is timed."""
        if self._refusal is not None or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        before = self.scope
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # No protocol but HTTP/1.1 is spoken here; what follows the request is not ours to parse.
            self.cycle.keep_alive = False
        except httptools.HttpParserError:
            self._refuse(self._reason or errors.BAD_REQUEST)
            return
        if self._in_head and self.scope is before:
            self._bound_head(len(data))
        if self._timer is None and (self._in_head or self._in_body or not self._is_busy()):
            self._arm(self._limits.body_seconds if self._in_body else self._limits.head_seconds)

    def _bound_head(self, received: int) -> None:
        # The parser keeps an unfinished header to itself, so whole chunks are counted too.
        self._unparsed += received
        if self._unparsed > self._limits.target + self._limits.headers:
            self._refuse(errors.HEADERS_TOO_LARGE)

    # --- the parser's callbacks

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._in_head = True
        self._head_size = self._unparsed = 0
        self.scope[TRANSPORT] = self.transport  # type: ignore[literal-required]
        if self._peer is not None:
            self.scope[PEER] = self._peer  # type: ignore[literal-required]

    def on_url(self, url: bytes) -> None:
        """Take a part of the request target."""
        self.url += url
        if len(self.url) > self._limits.target:
            self._stop(errors.URI_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers are counted and dropped (RFC 9110, section 6.5.1)."""
        self._head_size += len(name) + len(value) + _LINE_OVERHEAD
        if self._head_size > self._limits.headers:
            self._stop(errors.HEADERS_TOO_LARGE)
        if self._in_head:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Hand the request to the app if it is one of HTTP/1.0 or 1.1 with a target that is a path, and no fragment."""
        if self.parser.get_http_version() not in {"1.1", "1.0"} or self.url[:1] != b"/" or b"#" in self.url:
            self._stop(errors.BAD_REQUEST)
        self._disarm()
        self._in_head = False
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a request."""
        self._disarm()
        self._in_body = False
        super().on_message_complete()

    def _stop(self, kind: ErrorKind) -> None:
        self._reason = kind
        raise _Refusal

    def on_response_complete(self) -> None:
        """Go on with the next request, or with a refusal that had to wait for its turn."""
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._refusal is not None and not self._is_busy():
            self._send_refusal(self._refusal)
        elif self._in_body and self.expect_100_continue and not self._is_busy():
            # Whether the client still sends the body is its choice: the next bytes could be either.
            self.transport.close()

    # --- timers

    def _is_busy(self) -> bool:
        return not getattr(self.cycle, "response_complete", True)

    def _arm(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._expire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self.flow.read_paused or (self._in_head and self._is_busy()):
            # It is we who keep the client waiting.
            self._arm(self._limits.head_seconds)
        elif self._in_head or (self._in_body and self._is_busy()):
            self._refuse(errors.REQUEST_TIMEOUT)
        elif not self._is_busy():
            self.transport.close()

    # --- refusals

    def _refuse(self, kind: ErrorKind) -> None:
        """Answer what never becomes a request, after the answers that come before it."""
        self._disarm()
        if self._in_body and self._is_busy():
            # The app is reading this body: it learns there why the rest does not come, and answers itself.
            self.scope[BROKEN] = kind  # type: ignore[literal-required]
            self._in_body = False
            self.cycle.keep_alive = False
            self.cycle.message_event.set()
        elif self._in_body:
            self.transport.close()
        elif self._is_busy():
            self._refusal = kind
        else:
            self._refusal = kind
            self._send_refusal(kind)

    def _send_refusal(self, kind: ErrorKind) -> None:
        request_id = new_request_id()
        path = self.url.partition(b"?")[0][:200].decode("ascii", "backslashreplace") if self.url else ""
        problem = render(DaemonError(kind), instance=path, request_id=request_id)
        headers = [
            *self.server_state.default_headers,
            *((name.encode(), value.encode()) for name, value in problem.headers.items()),
            *SECURITY_HEADERS,
            (b"x-request-id", request_id.encode()),
            (b"content-length", str(len(problem.body)).encode()),
            (b"connection", b"close"),
        ]
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        self.transport.write(STATUS_LINE[problem.status] + lines + b"\r\n" + problem.body)
        self.transport.close()
        if self._meter is not None:
            self._meter.count_malformed(problem.status)
        self._log.emit(
            "http.request",
            request_id=request_id,
            method=self.parser.get_method().decode() if self.url else None,
            route=None,
            status=problem.status,
            durationMs=None,
            actor="anonymous",
        )


def _peer_of(sock: Any) -> Peer | None:
    if sys.platform != "linux" or sock.family != socket.AF_UNIX:
        return None
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Peer(pid, uid)
