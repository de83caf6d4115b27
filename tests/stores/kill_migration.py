"""Driver of the kill test: migrate copies of a database, each killed with SIGKILL before another statement.

Usage: kill_migration.py START_DATABASE_OR_EMPTY DIRECTORY NOW. Makes DIRECTORY/N/daemon.db for N = 1, 2, … until a run
gets through, and prints that number. SQLite's trace callback reports every statement before it runs, COMMIT too.
"""

import os
import shutil
import signal
import sqlite3
import sys
from pathlib import Path

import sqlite_utils  # noqa: F401 - imported once here rather than in every child

from daemon.stores.migrate import migrate


def kill_before(number: int) -> None:
    """Make the process kill itself before its statement of that number, on whichever connection."""
    seen = 0
    connect = sqlite3.connect

    def trace(_: str) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def traced(*args: object, **kwargs: object) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **kwargs)  # type: ignore[call-overload]
        connection.set_trace_callback(trace)
        return connection

    sqlite3.connect = traced  # type: ignore[assignment]


def run(start: str, home: Path, now: int, number: int) -> bool:
    """Return whether the run was killed."""
    home.mkdir()
    database = home / "daemon.db"
    if start:
        shutil.copy(start, database)
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


if __name__ == "__main__":
    place, number = Path(sys.argv[2]), 1
    while run(sys.argv[1], place / str(number), int(sys.argv[3]), number):
        number += 1
    print(number)
