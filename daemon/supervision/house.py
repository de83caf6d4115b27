"""What all sessions' processes share: the way to the rows, the files, the clocks, and how long an end may take."""

from collections.abc import Awaitable, Callable, Mapping

import msgspec

from daemon.domain.clock import Clock
from daemon.domain.rows import Session
from daemon.services.process_reports import ProcessReports
from daemon.settings import Processes
from daemon.supervision.files import Files
from daemon.supervision.reaper import Reaper


class Grace(msgspec.Struct, frozen=True, kw_only=True):
    """How long a process is given, in seconds.

    Args:
        end_of_input: after it sees the end of its input, until it is asked to.
        terminate: after that, until it is killed.
        wrapper: after that, for the wrapper to say how it ended.
        processor: over which its use of the processor is averaged before it is held against its limit.
    """

    end_of_input: float = 5.0
    terminate: float = 10.0
    wrapper: float = 2.0
    processor: float = 10.0


class Places:
    """How many processes run, and may run; those that are found at the start run, whatever may.

    Args:
        most: that may run at the same time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    @property
    def full(self) -> bool:
        """Return whether no other process may be started now."""
        return self._taken >= self._most

    def take(self) -> None:
        """Note that a process runs."""
        self._taken += 1

    def give_back(self) -> None:
        """Note that it does not run any more."""
        self._taken -= 1


class House(msgspec.Struct, kw_only=True):
    """The surroundings of a session's process.

    Args:
        reports: the way to the rows.
        files: the sessions' directories.
        reaper: kills trees.
        settings: the processes section.
        grace: how long a process is given.
        clock: the domain clock.
        environment: what every process gets of the daemon's own.
        umask: of the processes.
        scoped: whether each tree gets a scope of its own from systemd.
        url: where they find the daemon.
        report: puts a line into the structured log.
        fail: puts a line about an exception there.
        renew: renews a session's token.
        settle: sees to it that there is a valid token in a session's file.
        places: as many as processes may run at the same time.
        over: called with the id of a session that is CLOSED, or gone.
    """

    reports: ProcessReports
    files: Files
    reaper: Reaper
    settings: Processes
    grace: Grace
    clock: Clock
    environment: Mapping[str, str]
    umask: int
    scoped: bool
    url: str = ""
    report: Callable[..., None]
    fail: Callable[..., None]
    renew: Callable[[Session], Awaitable[object]]
    settle: Callable[[str], Awaitable[None]]
    places: Places
    over: Callable[[str], None] = lambda _: None
