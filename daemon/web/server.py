"""The HTTP server: its listeners, and uvicorn without its hold on the process's signals."""

import asyncio
import errno
import resource
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import uvicorn

from daemon.log import Log
from daemon.web.meter import RequestMeter
from daemon.web.protocol import Limits, Protocol

BACKLOG = 2_048
"""Connections that may wait to be accepted."""
_SPARE_DESCRIPTORS = 64
"""Kept for the database, the log and the listeners."""
_REPORT_EVERY = 60.0
"""Seconds between two lines about refused connections."""
_DATE_SECONDS = 1.0
"""The Date header says no more."""
_DRAIN_TICK_SECONDS = 0.005


def bind_tcp(host: str, port: int) -> socket.socket:
    """Bind and listen.

    Args:
        host: a name or an address, IPv6 without brackets.
        port: 0 picks a free one; `getsockname()[1]` tells which.

    Raises:
        OSError: the address is in use, not ours, or the name unknown; the text says which.
    """
    address = f"{host}:{port}"
    try:
        family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as exc:
        raise OSError(errno.EADDRNOTAVAIL, f"cannot listen on {address}: the name is unknown") from exc
    # Named, because asyncio sets TCP_NODELAY only on sockets that say they are TCP.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(target)
        # At once: two sockets may be bound to one port as long as neither listens.
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        raise OSError(exc.errno, f"cannot listen on {address}: {(exc.strerror or 'failed').lower()}") from exc
    sock.setblocking(False)
    return sock


def bind_unix(path: Path) -> socket.socket:
    """Bind and listen on a socket file of mode 0600; one that is there is a leftover and goes.

    Raises:
        OSError: the path is too long, not ours, or something else than a socket; the text says which.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_socket(path)
        sock.bind(str(path))
        # Nobody can connect before listen(), so there is no moment with a wider mode.
        path.chmod(0o600)
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        raise OSError(exc.errno, f"cannot listen on {path}: {(exc.strerror or str(exc)).lower()}") from exc
    sock.setblocking(False)
    return sock


def _remove_socket(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "a file that is no socket is in the way")
    path.unlink()


class _Uvicorn(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self.exiting = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the lifecycle: uvicorn raises them again after the drain and kills the process."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        """Keep the Date header true until it is time to go: uvicorn looks ten times a second whether it is."""
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(_DATE_SECONDS):
                    await self.exiting.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close what listens and wait for the requests in progress, as uvicorn does, but no longer than they take."""
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110 - these tell nobody
                    await asyncio.sleep(_DRAIN_TICK_SECONDS)
        except TimeoutError:
            for task in self.server_state.tasks:
                task.cancel()


class Server:
    """Serves one ASGI application on TCP and a unix socket at once.

    Args:
        app: the envelope.
        log: for requests that never reach the app.
        drain_seconds: how long requests in progress may take after `begin_shutdown`.
        limits: what a connection may take.
        meter: counts requests that never reach the app, if anybody does.
    """

    def __init__(
        self,
        app: Any,
        *,
        log: Log,
        drain_seconds: int = 30,
        limits: Limits | None = None,
        meter: RequestMeter | None = None,
    ) -> None:
        limits = _within_descriptors(limits or Limits())
        self._log = log
        self._limits = limits
        self._refused = 0
        self._reported = float("-inf")
        protocol: Any = partial(Protocol, limits=limits, log=log, on_refused=self._on_refused, meter=meter)
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            # The client's address is the peer's: whoever can connect could claim any other.
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=limits.idle_seconds,
            timeout_graceful_shutdown=drain_seconds,
        )
        self._server = _Uvicorn(config)

    async def serve(self, sockets: Sequence[socket.socket]) -> None:
        """Serve on listening sockets until `begin_shutdown`, then drain; the sockets are closed."""
        await self._server.serve(list(sockets))

    async def started(self) -> None:
        """Return when requests are answered."""
        await self._server.ready.wait()

    def begin_shutdown(self) -> None:
        """Accept no connection any more, and make `serve` return when the requests in progress are answered."""
        self._server.should_exit = True
        self._server.exiting.set()

    def _on_refused(self) -> None:
        self._refused += 1
        now = asyncio.get_running_loop().time()
        if now - self._reported < _REPORT_EVERY:
            return
        self._reported = now
        self._log.emit("connections.refused", limit=self._limits.connections, refused=self._refused)


def _within_descriptors(limits: Limits) -> Limits:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return limits
    return msgspec.structs.replace(limits, connections=max(16, min(limits.connections, soft - _SPARE_DESCRIPTORS)))
