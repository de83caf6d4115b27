"""What every adapter does: arguments for a start, lines for turns, and the meaning of what comes out."""

from typing import Protocol

import msgspec

from daemon.domain.process_rows import TurnState
from daemon.domain.usage import Usage


class TurnOver(msgspec.Struct, frozen=True):
    """The running turn is over, or the command did something of its own accord.

    Args:
        outcome: of the turn; None: it was none that was sent.
        run_usage: of the whole run so far.
        resumable: whether the conversation can be resumed by a later run.
    """

    outcome: TurnState | None
    run_usage: Usage
    resumable: bool


class ToolsChanged(msgspec.Struct, frozen=True):
    """Tools began, or gave their results; each by its id."""

    began: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()


class NothingToResume(msgspec.Struct, frozen=True):
    """The command has not kept the conversation that it was to go on with, and ends."""


Meaning = TurnOver | ToolsChanged | NothingToResume


class Resumption(msgspec.Struct, frozen=True):
    """Where a run begins.

    Args:
        external_id: under which the command keeps the conversation.
        resumes: whether there is one to go on with.
        spent_usd: by the runs before.
    """

    external_id: str
    resumes: bool
    spent_usd: float


class Adapter(Protocol):
    """Speaks with one kind of command, for one configuration. Pure: it runs nothing and reads no file."""

    quiet_after: float | None
    """Seconds without output after which a turn is over; None: the output itself says when."""
    tool_timeout: int
    """Seconds that a tool may take; 0: no bound."""

    def arguments(self, begin: Resumption) -> list[str]:
        """Return the command to run."""
        ...

    def line(self, content: str) -> bytes:
        """Return a message as it enters the command's standard input, with its line end."""
        ...

    def interruption(self, number: int) -> bytes | None:
        """Return the line that interrupts the running turn; None: there is no such thing."""
        ...

    def meaning(self, line: bytes) -> Meaning | None:
        """Return what a line of output means for the session; None: nothing."""
        ...
