"""What happens to every request, around the app: the framework's own middleware does not run on 404 and 405."""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from itertools import count
from typing import Any, Literal

from daemon.domain import errors
from daemon.domain.clock import Clock
from daemon.domain.errors import DaemonError
from daemon.log import Log
from daemon.web.context import RequestContext, attach
from daemon.web.hosts import HostPolicy
from daemon.web.limits import LINK_PATH, MAX_BODY, RateWindow, accepts, is_routable, limited_body
from daemon.web.meter import RequestMeter
from daemon.web.problems import problem_for

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]

SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
]
"""On every answer, problems too."""

_WATCHED = frozenset(
    (
        b"host",
        b"origin",
        b"accept",
        b"content-length",
        b"transfer-encoding",
        b"x-request-id",
        b"x-daemon-client",
    )
)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_CLIENTS: dict[bytes, Literal["cli", "run"]] = {b"cli": "cli", b"run": "run"}
_CONVERSATIONS = "/v1/conversations/"
_OWNER_PATHS = ("/v1/agents", "/v1/sessions", "/v1/owner", "/v1/admin", "/health", "/metrics")

_OPEN_WHILE_LOCKED = frozenset(
    f"/v1/admin/{name}" for name in ("kill-switch", "recover", "shutdown", "backup", "password")
)

_process = os.urandom(8).hex()
_numbers = count(1)


def new_request_id() -> str:
    """Return an id that no other request has: it names a request and grants nothing, so it need not be a secret."""
    return f"{_process}{next(_numbers):016x}"


class Envelope:
    """The ASGI application that the server runs: checks, the app, headers, and one log line a request.

    Args:
        app: what answers the requests that pass.
        services: handed to the routes in the request's context.
        log: for the `http.request` lines and the causes of internal errors.
        clock: for the rate window and durations.
        hosts: which Host and Origin headers are ours.
        global_rpm: requests a minute, owner routes not counted; 0 is no limit.
        locked: whether the kill switch is on.
        meter: counts the requests, if anybody does.
    """

    def __init__(
        self,
        app: App,
        *,
        services: Any,
        log: Log,
        clock: Clock,
        hosts: HostPolicy,
        global_rpm: int,
        locked: Callable[[], bool] = lambda: False,
        meter: RequestMeter | None = None,
    ) -> None:
        self._app = app
        self._services = services
        self._log = log
        self._clock = clock
        self._hosts = hosts
        self._locked = locked
        self._meter = meter
        self.rate = RateWindow(global_rpm)
        self.in_flight = 0
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()

    def begin_shutdown(self) -> None:
        """Refuse what comes from now on with SHUTTING_DOWN, but for `GET /health`."""
        self._stopping = True

    async def drained(self) -> None:
        """Return when no request is being answered any more; after `begin_shutdown`."""
        while self.in_flight:
            self._idle.clear()
            await self._idle.wait()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = self._clock.monotonic()
        seen = _watched_headers(scope["headers"])
        about = self._context(scope, seen)
        status = 0

        def send_enveloped(message: Any) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra = (b"x-request-id", about.request_id.encode())
                message["headers"] = [*message["headers"], *SECURITY_HEADERS, extra, *about.headers]
            return send(message)

        self.in_flight += 1
        try:
            self._admit(scope, seen, started)
            if b"content-length" in seen or b"transfer-encoding" in seen:
                about.has_body = True
                # Whoever takes his time with the body must not be answered as if nothing had happened meanwhile.
                receive = limited_body(receive, scope, lambda: self._check_kill_switch(scope))
            await self._app(scope, receive, send_enveloped)
        except Exception as exc:  # noqa: BLE001 (nothing may escape to the server, which answers in plain text)
            error = exc if isinstance(exc, DaemonError) else DaemonError(errors.INTERNAL_ERROR)
            if status or error is not exc:
                about.cause = exc
            if not status:
                await _answer(error, scope, about, send_enveloped)
        finally:
            self._finish(scope, about, status, started)

    def _context(self, scope: Scope, seen: dict[bytes, bytes]) -> RequestContext:
        sent = seen.get(b"x-request-id")
        request_id = sent.decode() if sent and _REQUEST_ID.fullmatch(sent) else new_request_id()
        peer = scope.get("client")
        client = _CLIENTS.get(seen.get(b"x-daemon-client", b""))
        about = RequestContext(request_id, peer[0] if peer else None, client, self._services)
        attach(scope, about)
        return about

    def _admit(self, scope: Scope, seen: dict[bytes, bytes], now: float) -> None:
        """Raise what a request is refused for before the app sees it.

        Raises:
            DaemonError: VALIDATION_ERROR, HOST_NOT_ALLOWED, ORIGIN_NOT_ALLOWED, BODY_TOO_LARGE, SHUTTING_DOWN,
                SYSTEM_LOCKED, RATE_LIMIT_EXCEEDED, ROUTE_NOT_FOUND, NOT_ACCEPTABLE.
        """
        host, raw_path = seen.get(b"host"), scope["raw_path"]
        # The unix socket is known by our end of it: a peer that has hung up has no address on TCP either.
        if (
            scope["server"][1] is not None
            and host not in self._hosts.hosts
            and (refused := self._hosts.check_host(host))
        ):
            raise refused
        # A page under `no-referrer` posts its form with `Origin: null`; nobody can make a browser post to a link
        # whose token he does not know.
        origin = None if scope["path"].startswith(LINK_PATH) else seen.get(b"origin")
        if origin is not None and (refused := self._hosts.check_origin(origin)):
            raise refused
        if b"content-length" in seen and int(seen[b"content-length"]) > MAX_BODY:
            raise DaemonError(errors.BODY_TOO_LARGE)
        if self._stopping and not (scope["path"] == "/health" and scope["method"] == "GET"):
            raise DaemonError(errors.SHUTTING_DOWN)
        self._check_kill_switch(scope)
        if self.rate.limit and not _is_owners(scope["method"], scope["path"]):
            wait = self.rate.take(now)
            if wait is not None:
                raise DaemonError(errors.RATE_LIMIT_EXCEEDED, retry_after=wait)
        if scope["path"].startswith(_CONVERSATIONS):
            # An id may hold whatever a path means something by: what follows is routed, and decoded, as it was sent.
            scope["path"] = path = raw_path.decode("ascii")
            if not path.startswith(_CONVERSATIONS) or "//" in path:
                raise DaemonError(errors.ROUTE_NOT_FOUND)
        elif (b"%" in raw_path or b"//" in raw_path) and not is_routable(raw_path):
            raise DaemonError(errors.ROUTE_NOT_FOUND)
        if b"accept" in seen and not accepts(seen[b"accept"], scope["path"]):
            raise DaemonError(errors.NOT_ACCEPTABLE)

    def _check_kill_switch(self, scope: Scope) -> None:
        """Raise SYSTEM_LOCKED while the kill switch is on, unless the route answers then too."""
        if self._locked() and not _is_open_while_locked(scope["method"], scope["path"]):
            raise DaemonError(errors.SYSTEM_LOCKED)

    def _finish(self, scope: Scope, about: RequestContext, status: int, started: float) -> None:
        self.in_flight -= 1
        if self._stopping and not self.in_flight:
            self._idle.set()
        if about.cause is not None:
            self._log.failure("request.failed", about.cause, request_id=about.request_id)
        seconds = self._clock.monotonic() - started
        if self._meter is not None:
            self._meter.count(scope, status, seconds)
        self._log.emit(
            "http.request",
            request_id=about.request_id,
            session_id=about.session_id,
            agent_id=about.agent_id,
            method=scope["method"],
            route=scope.get("path_template"),
            status=status or None,
            durationMs=round(seconds * 1000, 3),
            actor=about.actor,
        )


def _watched_headers(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return the headers that the envelope reads; repeated ones are joined (RFC 9110, section 5.2)."""
    seen: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _WATCHED:
            seen[name] = seen[name] + b"," + value if name in seen else value
    return seen


def _is_owners(method: str, path: str) -> bool:
    if not path.startswith(_OWNER_PATHS):
        return False
    return not (method == "PUT" and path.rstrip("/").endswith("/renew"))


def _is_open_while_locked(method: str, path: str) -> bool:
    """Return whether a route answers while the kill switch is on: health, metrics, what owners read, the way back."""
    if method == "GET":
        return path.startswith(_OWNER_PATHS)
    return method == "POST" and path in _OPEN_WHILE_LOCKED


async def _answer(error: DaemonError, scope: Scope, about: RequestContext, send: Send) -> None:
    problem = problem_for(error, scope, about.request_id)
    headers = [(name.encode(), value.encode("latin-1")) for name, value in problem.headers.items()]
    headers.append((b"content-length", str(len(problem.body)).encode()))
    if error.kind is errors.SHUTTING_DOWN:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": problem.body})
