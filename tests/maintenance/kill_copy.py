"""Driver of the kill test: copies, each ended by a signal before another step.

Usage: kill_copy.py HOME SOURCE TARGET OTHER SIGNAL POINTS LAST. OTHER is an empty database like TARGET, which tells how
many steps there are: of them POINTS are tried, and the LAST ones all, where the target becomes another. Prints as JSON,
for each point tried, how many sessions the target had after it and how many files the home's backups; all begins with
nothing there. A step is a statement of either engine, or a file that is opened, linked, renamed or removed.
"""

import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg

from daemon.home import Home
from daemon.maintenance import postgres_place
from daemon.maintenance.copy import copy
from tests.maintenance.kill_restore import Steps
from tests.support.engines import ask

assert postgres_place, "imported before the forks, each of which would else take its time for it"


class Quiet:
    """Progress that nobody looks at."""

    def begin(self, what: str, rows: int) -> None:
        """Say nothing."""

    def advance(self, rows: int) -> None:
        """Say nothing."""


def count_statements(steps: Steps) -> None:
    """Make a step of everything that is sent to PostgreSQL."""
    for name in ("execute", "fetchval", "fetchrow", "fetch", "copy_records_to_table"):
        setattr(asyncpg.Connection, name, _counted(getattr(asyncpg.Connection, name), steps))


def _counted(method: Callable[..., Awaitable[Any]], steps: Steps) -> Callable[..., Awaitable[Any]]:
    async def counted(*args: Any, **kwargs: Any) -> Any:
        steps.step()
        return await method(*args, **kwargs)

    return counted


def attempt(home: Home, source: str, target: str, number: int, deadly: int) -> int:
    """Copy in a child process and return how many steps it took; 0 if it was ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        steps = Steps(deadly, signal.Signals(number))
        count_statements(steps)
        try:
            copy(home, source, target, Quiet())
        except KeyboardInterrupt:
            os._exit(0)
        os.write(writing, str(steps.seen).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if status and not os.WIFSIGNALED(status):
        sys.exit(f"the copy that was to be ended at {deadly} failed")
    return int(said or 0)


def sessions(url: str) -> int:
    """Count those of a database, which need not be there."""
    path = Path("/" + url.removeprefix("sqlite:///"))
    if not url.startswith("sqlite"):
        return int(ask(url, "SELECT count(*) FROM sessions")[0][0])
    return int(ask(path, "SELECT count(*) FROM sessions")[0][0]) if path.exists() else 0


def main(home: Home, source: str, target: str, other: str, numbers: list[str]) -> None:
    """Try each point in turn, up to the first after which the target is the other."""
    number, points, last = map(int, numbers)
    total = attempt(home, source, other, number, 0)
    for file in home.backups.iterdir():
        file.unlink()
    seen = []
    dense = total - last
    for deadly in [*range(1, dense, dense // points), *range(dense, total + 1)]:
        attempt(home, source, target, number, deadly)
        seen.append((sessions(target), len([one for one in home.backups.iterdir() if one.suffix == ".db"])))
        if seen[-1][0]:
            break
    print(json.dumps(seen))


if __name__ == "__main__":
    main(Home.resolve(Path(sys.argv[1]), {}), *sys.argv[2:5], sys.argv[5:])
