"""What services ask of the room that runs processes, which they must not know."""

from collections.abc import Collection
from typing import Literal, Protocol

import msgspec

from daemon.domain.lines import Line
from daemon.domain.process_config import ProcessConfig
from daemon.domain.states import State

KILL_SECONDS = 5.0
"""How long a caller waits for the proof that nothing is left of what he ended."""

StreamName = Literal["stdout", "stderr"]


class Proof(msgspec.Struct, frozen=True):
    """What came of ending processes.

    Args:
        killed: processes of the system that are gone.
        left: that were still seen when the time was up.
    """

    killed: int = 0
    left: int = 0


class TreeUsage(msgspec.Struct, frozen=True):
    """What a process and all its descendants take.

    Args:
        processes: of the system.
        rss: bytes.
        cpu: cores kept busy over the last seconds.
    """

    processes: int = 0
    rss: int = 0
    cpu: float = 0.0


class ProcessCounts(msgspec.Struct, frozen=True):
    """What is known, without looking at the system, of all processes of this machine's sessions together.

    Args:
        states: sessions by state, of those whose process is not known to be over.
        running: sessions whose process runs.
        processes: of the system that their trees had when they were measured last.
        rss: bytes that those took.
    """

    states: dict[State, int]
    running: int
    processes: int
    rss: int


class OutputReader(Protocol):
    """Reads one stream of a session's output from an offset on."""

    async def next(self) -> list[Line]:
        """Return the next lines once there are any; nothing: there will be no more.

        Raises:
            DaemonError: OUTPUT_GONE.
        """
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Running(Protocol):
    """Runs the processes of sessions."""

    def problems(self, config: ProcessConfig) -> list[tuple[str, str]]:
        """Return what keeps a configuration from being run on this machine, as (path within it, message)."""
        ...

    def is_running(self, session_id: str) -> bool:
        """Return whether the session's process is seen to run, now."""
        ...

    async def ended(self, session_ids: Collection[str] | None, seconds: float) -> Proof:
        """Wait until nothing is left of the processes of closing sessions.

        Args:
            session_ids: whose; None: everybody's.
            seconds: to wait at most.
        """
        ...

    async def usage(self) -> dict[str, TreeUsage]:
        """Return what each session's tree takes, by session, for those that run."""
        ...

    def counts(self) -> ProcessCounts:
        """Return what is known of all of them; never waits."""
        ...

    async def raw_output(self, session_id: str, stream: StreamName, offset: int, limit: int) -> bytes:
        """Return output as it was written.

        Args:
            session_id: whose.
            stream: which.
            offset: of the first byte.
            limit: bytes at most.

        Raises:
            DaemonError: OUTPUT_GONE; VALIDATION_ERROR where there is no such offset yet.
        """
        ...

    def read_output(self, session_id: str, stream: StreamName, offset: int) -> OutputReader:
        """Return a reader that begins at an offset.

        Raises:
            DaemonError: OUTPUT_GONE; VALIDATION_ERROR where there is no such offset yet.
        """
        ...


class TokenFiles(Protocol):
    """The files in which the processes of sessions find their tokens. All of it may wait for a disk."""

    def stage(self, session_id: str, token: str) -> None:
        """Write the token that is about to be made the current one beside the file."""
        ...

    def unstage(self, session_id: str) -> None:
        """Forget a token that was staged and has not become the current one."""
        ...

    def current(self, session_id: str) -> str | None:
        """Return the token in the file, if there is one."""
        ...

    def settle(self, session_id: str, token_hash: str) -> bool:
        """Make the token with this hash the one in the file, if it is there or staged; return whether it is."""
        ...
