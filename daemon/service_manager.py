"""Word to the service manager that started us: systemd's notification socket (sd_notify(3), sd_watchdog_enabled(3))."""

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Self

_SEND_SECONDS = 0.1
"""How long one message may wait: systemd's queue is long, and whoever does not empty it needs no word from us."""
CLOSING_SECONDS = 15
"""What a stop may take beyond `server.shutdown_timeout`: the last lines of the log, the database's files."""
_MARGIN_SECONDS = 5
"""What is asked for beyond the limit of a step, so that we are the one to say what took too long."""


class ServiceManager:
    """Who started this process as its service; where nobody did, nothing that is told here goes anywhere.

    Args:
        address: of its socket: an absolute path, or `@` and a name in the abstract namespace.
        watchdog_seconds: after which it takes us for hung, unless it was told `alive` meanwhile; None: it does not.
    """

    def __init__(self, address: str = "", watchdog_seconds: float | None = None) -> None:
        self._address = address
        self.watchdog_seconds = watchdog_seconds

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> Self:
        """Return who the environment says started us, and take that out of it: it is not meant for our children."""
        address = environ.pop("NOTIFY_SOCKET", "")
        microseconds = environ.pop("WATCHDOG_USEC", "")
        for_whom = environ.pop("WATCHDOG_PID", "")
        if not address.startswith(("/", "@")):
            return cls()
        watched = for_whom in {"", str(os.getpid())} and microseconds.isdecimal() and int(microseconds) > 0
        return cls(address, int(microseconds) / 1e6 if watched else None)

    @property
    def is_there(self) -> bool:
        """Whether a service manager wants to be told."""
        return bool(self._address)

    def step(self, name: str, seconds: float) -> None:
        """Tell what the start is doing, and that it may take so long."""
        self._tell(f"STATUS=Starting: {name}", _extension(seconds + _MARGIN_SECONDS))

    def ready(self, status: str) -> None:
        """Tell that requests are answered, from now on or again; `status` is one line for people."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Tell that the configuration is read again; `ready` ends it."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=Reading the configuration")

    def stopping(self, shutdown_timeout: float) -> None:
        """Tell that the daemon stops, and how long that may take."""
        self._tell("STOPPING=1", "STATUS=Stopping", _extension(shutdown_timeout + CLOSING_SECONDS))

    def alive(self) -> None:
        """Tell that the daemon does its work."""
        self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        """Send one message; whoever does not listen does not keep us from our work."""
        if not self._address:
            return
        # "@" stands for the NUL byte of the abstract namespace (unix(7)).
        address = f"\0{self._address[1:]}" if self._address[0] == "@" else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.settimeout(_SEND_SECONDS)
            to.connect(address)
            to.send("\n".join(lines).encode())


def _extension(seconds: float) -> str:
    return f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}"
