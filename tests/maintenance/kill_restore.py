"""Driver of the kill test: restore into copies of a home, each killed with SIGKILL before another step.

Usage: kill_restore.py HOME BACKUP DIRECTORY POINTS. Makes DIRECTORY/N for the points N that are chosen, and prints them
as JSON. A step is a statement of SQLite, or a file that is opened, linked, renamed or removed.
"""

import json
import os
import shutil
import signal
import sqlite3
import sys
from pathlib import Path

from daemon.home import Home
from daemon.maintenance.restore import restore
from daemon.settings import LogSettings

_WATCHED = {"open", "os.link", "os.rename", "os.remove", "sqlite3.connect"}
_LAST = 14
"""Steps at the end that are all tried: where the new database takes its name."""


class Steps:
    """Counts the steps of this process and ends it by a signal before the one of that number; 0 never."""

    def __init__(self, deadly: int, by: signal.Signals = signal.SIGKILL) -> None:
        self.seen = 0
        self._deadly = deadly
        self._by = by
        connect = sqlite3.connect

        def traced(*args: object, **kwargs: object) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*args, **kwargs)  # type: ignore[call-overload]
            connection.set_trace_callback(lambda _: self.step())
            return connection

        sqlite3.connect = traced  # type: ignore[assignment]
        sys.addaudithook(lambda event, _: self.step() if event in _WATCHED else None)

    def step(self) -> None:
        """Count one."""
        self.seen += 1
        if self.seen == self._deadly:
            os.kill(os.getpid(), self._by)


def attempt(start: Path, backup: Path, place: Path, deadly: int) -> int:
    """Restore in a child process and return how many steps it took; 0 if it was killed."""
    shutil.copytree(start, place)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        steps = Steps(deadly)
        home = Home.resolve(place, {})
        restore(home, home.database, backup, LogSettings(), keep_sessions=False)
        os.write(writing, str(steps.seen).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if status and not os.WIFSIGNALED(status):
        sys.exit(f"the restore that was to be killed at {deadly} failed")
    return int(said or 0)


if __name__ == "__main__":
    start, backup, directory = (Path(argument) for argument in sys.argv[1:4])
    total = attempt(start, backup, directory / "whole", 0)
    early = range(1, total - _LAST, max(1, total // int(sys.argv[4])))
    tried = [*early, *range(total - _LAST, total + 1)]
    survived = [number for number in tried if attempt(start, backup, directory / str(number), number)]
    print(json.dumps({"tried": tried, "survived": survived}))
