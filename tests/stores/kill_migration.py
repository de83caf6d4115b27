"""Driver of the kill test: migrate copies of a database, each killed with SIGKILL before another statement.

Usage: kill_migration.py START_DATABASE_OR_EMPTY DIRECTORY NOW EVERY. Makes DIRECTORY/N/daemon.db for the points N that
are tried: of all statements every EVERY-th, those around each COMMIT all, and one more, at which a run gets through.
Prints as JSON the number of that one, and those that were tried. SQLite's trace callback reports every statement before
it runs, COMMIT too.
"""

import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import sqlite_utils  # noqa: F401 - imported once here rather than in every child

from daemon.stores.migrate import migrate


def watch(seen: Callable[[str], None]) -> None:
    """Call a function before every statement of this process, on whichever connection."""
    connect = sqlite3.connect

    def traced(*args: object, **kwargs: object) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **kwargs)  # type: ignore[call-overload]
        connection.set_trace_callback(seen)
        return connection

    sqlite3.connect = traced  # type: ignore[assignment]


def kill_before(number: int) -> None:
    """Make the process kill itself before its statement of that number."""
    seen = 0

    def trace(_: str) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    watch(trace)


def made(start: str, home: Path) -> Path:
    """Make a home to migrate, and return the place of its database."""
    home.mkdir()
    if start:
        shutil.copy(start, home / "daemon.db")
    return home / "daemon.db"


def run(start: str, home: Path, now: int, number: int) -> bool:
    """Return whether the run was killed."""
    database = made(start, home)
    child = os.fork()
    if child == 0:
        kill_before(number)
        migrate(database, now=now, backups=home / "backups")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if status:
        sys.exit(f"run {number} failed")
    return False


def statements(start: str, home: Path, now: int) -> list[str]:
    """Return the statements of a run that nothing ends."""
    database, found = made(start, home), list[str]()
    watch(found.append)
    migrate(database, now=now, backups=home / "backups")
    return found


def main(start: str, place: Path, now: int, every: int) -> None:
    """Try the points and print them."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, json.dumps([sql[:9] for sql in statements(start, place / "whole", now)]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        words = json.loads(pipe.read())
    os.wait()
    total = len(words) + 1
    around = {at + near for at, word in enumerate(words, 1) if word == "COMMIT" for near in (0, 1)}
    tried = sorted({*range(1, total, every), *around, total})
    killed = [number for number in tried if run(start, place / str(number), now, number)]
    assert killed == tried[:-1], "a run took other statements than the first one"
    print(json.dumps([total, tried]))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
