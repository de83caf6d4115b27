"""Where this call's daemon is, and the way to it: its unix socket, or TCP."""

import http.client
import socket
import urllib.parse
from collections.abc import Callable

import msgspec

from daemon.cli import base
from daemon.cli.failure import Failure, NotRunning, Passing
from daemon.cli.output import one_line
from daemon.home import Home, HomeError
from daemon.lock import lock_holder
from daemon.run_info import read_info


class Address(msgspec.Struct, frozen=True):
    """Where a daemon is: its URL, and its socket, which is preferred."""

    url: str
    socket: str | None = None


def running_daemon(home: Home) -> Address:
    """Return the address of the daemon that holds the home's lock: nobody else shall get the password.

    Raises:
        NotRunning: nobody holds it.
        Failure: the daemon is not ready, or the home cannot be used.
    """
    try:
        holder = lock_holder(home)
    except HomeError as error:
        raise Failure(str(error)) from None
    if holder is None:
        raise NotRunning(f"The daemon is not running in {home.root}", hint="start it: daemon start --detach")
    info = read_info(home)
    if info is None or info.pid != holder:
        raise Passing(f"The daemon (pid {holder}) is starting or stopping", hint="try again in a moment")
    return Address(info.url, info.socket)


def locator() -> Callable[[], Address]:
    """Return what finds this call's daemon, again and again and from any thread: `--url`, DAEMON_URL or the home's own.

    Called, it raises as `running_daemon`.
    """
    if url := base.url():
        return lambda: Address(url)
    home = base.home()
    return lambda: running_daemon(home)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def connection(at: Address, timeout: float) -> http.client.HTTPConnection:
    """Return a connection that is still to be opened.

    Args:
        at: the daemon.
        timeout: seconds that it may stay silent.

    Raises:
        Failure: this is no address.
    """
    if at.socket:
        return _UnixConnection(at.socket, timeout)
    kinds: dict[str, type[http.client.HTTPConnection]] = {
        "http": http.client.HTTPConnection,
        "https": http.client.HTTPSConnection,
    }
    try:
        parts = urllib.parse.urlsplit(at.url)
        kind, host, port = kinds[parts.scheme], parts.hostname or "", parts.port
    except (KeyError, ValueError):
        host = ""
    if not host or parts.path or parts.query or not host.isascii():
        raise Failure(f"{one_line(at.url)} is no address of a daemon", hint="write http://HOST:PORT")
    return kind(host, port, timeout=timeout)
