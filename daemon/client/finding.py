"""Where the daemon and the session are: arguments, else the environment, else the home."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from daemon.client.effects import Credential
from daemon.client.errors import ClientError, NoSession, Unreachable
from daemon.client.token_cell import cell, lent
from daemon.client.token_file import TokenFile
from daemon.home import Home
from daemon.run_info import read_info

TOKEN_FILE = "DAEMON_TOKEN_FILE"  # noqa: S105 (the name of a variable)
TOKEN = "DAEMON_SESSION_TOKEN"  # noqa: S105 (the name of a variable)
URL = "DAEMON_URL"

TIMEOUT = 30.0
"""Seconds that a call may take, unless it is told otherwise; everything that is tried again is included."""

StrPath = str | os.PathLike[str]


class Address(msgspec.Struct, frozen=True):
    """Where a daemon is: its socket, which is preferred, and its URL."""

    url: str
    socket: str | None = None

    def __str__(self) -> str:
        """Return it for people."""
        return self.socket or self.url


Locate = Callable[[], Address]
"""Returns where the daemon is now: after a restart that may be elsewhere. Raises Unreachable where none runs."""


def credential(token_file: StrPath | None, token: str | None, environ: Mapping[str, str]) -> Credential:
    """Return where the token is: the arguments, else `DAEMON_TOKEN_FILE`, else `DAEMON_SESSION_TOKEN`.

    A token in the environment is not renewed: a program that begins later would find it there superseded, and to use it
    would end the session (TOKEN_REUSED).

    Raises:
        NoSession: nothing of that is given, or it is no token.
    """
    if token_file is not None and token is not None:
        raise NoSession("Give a token or a token file, not both")
    if token is not None:
        return cell(token.strip(), "the token")
    if token_file is None:
        token_file = environ.get(TOKEN_FILE) or None
    if token_file is not None:
        return TokenFile(Path(os.path.abspath(token_file)))  # noqa: PTH100 (resolve() would follow symbolic links)
    if token := environ.get(TOKEN):
        return lent(token.strip(), TOKEN)
    raise NoSession(f"There is no session: set {TOKEN_FILE}, or start this program with `daemon run`")


def locator(url: str | None, socket: StrPath | None, home: StrPath | None, environ: Mapping[str, str]) -> Locate:
    """Return what finds the daemon: the arguments, else `DAEMON_URL`, else `daemon.json` of the home.

    Raises:
        ClientError: more than one is given, or the URL is no address.
    """
    if sum(given is not None for given in (url, socket, home)) > 1:
        raise ClientError("Give one of url, socket and home")
    if socket is not None:
        at = Address("http://localhost", os.path.abspath(socket))  # noqa: PTH100
        return lambda: at
    url = url or (environ.get(URL) if home is None else None)
    if url:
        at = Address(_checked(url.rstrip("/")))
        return lambda: at
    return lambda: _running(Home.resolve(Path(home) if home else None, environ))


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        right = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0 and url.isascii()
    except ValueError:
        right = False
    if not right or parts.path or parts.query or parts.fragment or "@" in url:
        raise ClientError("The URL is no address of a daemon: write http://HOST:PORT")
    return url


def _running(home: Home) -> Address:
    info = read_info(home)
    if info is None:
        raise Unreachable(f"The daemon is not running in {home.root}; the owner starts it: daemon start --detach")
    return Address(info.url, info.socket)
