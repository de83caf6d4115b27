"""What a running daemon says of itself: the pid file and `daemon.json`."""

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from daemon.home import Home

_READ_LIMIT = 65_536
_PID_LIMIT = 2**31 - 1


class RunInfo(msgspec.Struct, frozen=True, rename="camel"):
    """What `daemon.json` says of a running daemon; `started_at` is in Unix seconds."""

    pid: Annotated[int, Meta(ge=1, le=_PID_LIMIT)]
    started_at: int
    url: str
    socket: str | None
    version: str


def read_pid(home: Home) -> int | None:
    """Return the pid file's number; None where it is missing or says nothing. Only the lock proves that it is true."""
    text = _read(home.pid_file).strip()
    return int(text) if text.isdigit() and len(text) <= 10 and 1 <= int(text) <= _PID_LIMIT else None


def read_info(home: Home) -> RunInfo | None:
    """Return `daemon.json`; None where it is missing or says nothing. Only the lock proves that it is true."""
    try:
        return msgspec.json.decode(_read(home.json_file), type=RunInfo)
    except (ValueError, RecursionError):
        return None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_READ_LIMIT)
    except OSError:
        return b""
