"""What needs the home for itself, and how it is refused."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from daemon.domain.errors import DaemonError
from daemon.home import Home
from daemon.lock import HomeLock
from daemon.stores import inspection, sqlite_file
from daemon.stores.migrate import MigrationError


class Refused(Exception):  # noqa: N818 (what the owner is told, not a fault of the program)
    """A command of maintenance cannot be done, and has changed nothing.

    Args:
        problem: what is wrong, in one line.
        cure: what to do about it.
    """

    def __init__(self, problem: str, cure: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.cure = cure


@contextlib.contextmanager
def held(home: Home) -> Iterator[None]:
    """Hold the lock of a home that exists.

    Raises:
        AlreadyRunning: a daemon has it.
        HomeError: the home cannot be used.
    """
    home.check()
    lock = HomeLock(home)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Turn what SQLite, the operating system and the engine raise into a refusal that names the file.

    Raises:
        Refused: in one line.
    """
    try:
        yield
    except BrokenPipeError:  # nobody reads what is printed any more: not the file's fault
        raise
    except (sqlite3.Error, OSError) as error:
        raise Refused(f"{path}: {sqlite_file.reason(error)}") from error
    except MigrationError as error:
        raise Refused(str(error)) from error
    except DaemonError as error:
        cause = error.__cause__
        raise Refused(
            f"{path}: {sqlite_file.reason(cause) if isinstance(cause, Exception) else error.detail}"
        ) from error


@contextlib.contextmanager
def reading(database: Path) -> Iterator[sqlite3.Connection]:
    """Open a database for reading alone, whether the daemon runs or not.

    Raises:
        Refused: there is none, or it cannot be read.
    """
    if not database.exists():
        raise Refused(f"There is no database at {database}", "run: daemon init")
    with named(database), inspection.look(database) as connection:
        yield connection
