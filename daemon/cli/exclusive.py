"""Commands that need the home for themselves: how it is told that they cannot have it."""

import contextlib
from collections.abc import Iterator

from daemon.cli.failure import ALREADY_RUNNING, Failure
from daemon.home import Home
from daemon.lock import AlreadyRunning
from daemon.run_info import read_info


def already(home: Home, pid: int, cure: str = "see: daemon status") -> Failure:
    """Return the failure that a daemon runs in the home, and what helps."""
    info = read_info(home)
    where = f" at {info.url}" if info and info.pid == pid else ""
    return Failure(f"The daemon is already running (pid {pid}){where}", ALREADY_RUNNING, hint=cure)


@contextlib.contextmanager
def maintaining(home: Home, cure: str = "stop it first: daemon stop") -> Iterator[None]:
    """Turn refusals of `daemon.maintenance` into failures.

    Args:
        home: which one is worked on.
        cure: what helps where its daemon runs.

    Raises:
        Failure: 5 where the daemon runs, else 1.
    """
    # Imported here: the engine takes longer than most commands run.
    from daemon.maintenance.exclusive import Refused  # noqa: PLC0415

    try:
        yield
    except Refused as refused:
        raise Failure(refused.problem, hint=refused.cure) from None
    except AlreadyRunning as running:
        raise Failure(str(running), ALREADY_RUNNING, hint=cure) from None
