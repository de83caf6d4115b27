"""What a service manager is to start."""

import os
from pathlib import Path

import msgspec

NAME = "agent-daemon"
"""The service's name: one daemon of each owner is a service, others are started by hand."""


class ServiceError(Exception):
    """The service cannot be installed, removed or asked for.

    Args:
        message: one sentence.
        hint: what to do about it.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Service(msgspec.Struct, frozen=True):
    """The daemon of one home as a service.

    Args:
        program: the beginning of the command line that starts it, an absolute path first.
        home: of the daemon, absolute.
        path: where it finds the commands of sessions, as in PATH.
        stop_seconds: that a stop may take.
    """

    program: list[str]
    home: Path
    path: str
    stop_seconds: int

    @property
    def command(self) -> list[str]:
        """The whole command line; the home is always named, since a manager's environment is not a shell's."""
        return [*self.program, "--home", str(self.home), "start"]


def absolute(path: str) -> str:
    """Return the entries of a PATH that mean the same everywhere, each once, and none that cannot be shown."""
    entries = (entry for entry in path.split(os.pathsep) if entry.startswith("/") and entry.isprintable())
    return os.pathsep.join(dict.fromkeys(entries))
