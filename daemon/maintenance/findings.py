"""What a check looks at, and what it finds."""

import contextlib
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from daemon.config import ConfigError, Loaded, load
from daemon.home import Home
from daemon.lock import lock_holder
from daemon.settings import Config
from daemon.stores import inspection

Status = Literal["ok", "warning", "failed"]

RESTORE = "restore a backup: daemon restore FILE"


class Finding(msgspec.Struct, frozen=True):
    """One line of the doctor's; `cure` is what to do, None where all is well."""

    name: str
    status: Status
    detail: str
    cure: str | None = None


def ok(name: str, detail: str) -> Finding:
    """All is well."""
    return Finding(name, "ok", detail)


def warning(name: str, detail: str, cure: str) -> Finding:
    """Something that does not keep the daemon from working."""
    return Finding(name, "warning", detail, cure)


def failed(name: str, detail: str, cure: str) -> Finding:
    """Something that must be mended."""
    return Finding(name, "failed", detail, cure)


def told(name: str, line: str, cure: str) -> Finding:
    """Something that an engine says in one line: what is wrong, a semicolon, and what helps; else `cure`."""
    detail, _, helps = line.partition("; ")
    return failed(name, detail, helps or cure)


class Patient(msgspec.Struct, frozen=True):
    """What is examined.

    Args:
        home: the home, which may be missing.
        loaded: its configuration; None where that is invalid.
        problems: of the configuration.
        now: wall time in Unix seconds.
        begun: when that was, on the monotonic clock.
    """

    home: Home
    loaded: Loaded | None
    problems: tuple[str, ...]
    now: int
    begun: float = msgspec.field(default_factory=time.monotonic)

    def wall(self) -> float:
        """Return the wall time in Unix seconds now, while it is examined."""
        return self.now + time.monotonic() - self.begun

    @classmethod
    def of(cls, home: Home, environ: Mapping[str, str], now: int) -> "Patient":
        """Read the configuration, which may be invalid."""
        try:
            return cls(home, load(home.root, environ, {}), (), now)
        except ConfigError as error:
            return cls(home, None, tuple(error.problems), now)

    @property
    def config(self) -> Config:
        """The configuration; the defaults where it is invalid."""
        return self.loaded.config if self.loaded else Config()

    @property
    def database(self) -> Path:
        """The database."""
        return self.config.database.path or self.home.database

    @property
    def log_file(self) -> Path:
        """The newest log file."""
        return self.home.log_file(self.config.log.file)

    @property
    def holder(self) -> int | None:
        """The pid of the daemon that runs in the home; raises HomeError as `lock_holder`."""
        return lock_holder(self.home)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Open the database for reading alone.

        Raises:
            sqlite3.Error: it cannot be read.
        """
        with inspection.look(self.database) as connection:
            yield connection


Findings = Iterable[Finding]
Check = Callable[[Patient], Findings | Awaitable[Findings]]
"""A check is a function `check_NAME`; it changes nothing, and may be async."""
