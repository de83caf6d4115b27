"""What every service manager can be asked, and how its command is called."""

import subprocess
from pathlib import Path
from typing import NamedTuple, Protocol

from daemon.installation.service import Service, ServiceError


class Said(NamedTuple):
    """What a file of ours tells the manager: the command line, and the PATH that comes with it."""

    command: list[str]
    path: str


class State(NamedTuple):
    """How the service does.

    `enabled` is whether it starts by itself, `word` the manager's own for what it does now.
    """

    enabled: bool
    active: bool
    word: str
    pid: int | None


class Manager(Protocol):
    """A service manager of the owner's own; what it is asked for raises ServiceError when it cannot be had."""

    kind: str
    service: str
    """The service's name there."""
    file: Path
    """Where the manager looks for it."""
    restart_hint: str
    """The command that starts the service anew."""

    def render(self, service: Service) -> str:
        """Return the file's text, sealed."""
        ...

    def read(self, text: str) -> Said:
        """Return what a file that `render` made says."""
        ...

    def check(self) -> None:
        """Make sure that the manager is there, and looks where `file` is."""
        ...

    def enable(self) -> None:
        """Let it read the file, and start the service by itself from now on."""
        ...

    def start(self, *, anew: bool) -> None:
        """Start the service and return when it serves; `anew`: one that runs is stopped first."""
        ...

    def disable(self) -> None:
        """Stop the service, and let it not start by itself any more; the file is still there."""
        ...

    def forget(self) -> None:
        """Let the manager know that the file is gone."""
        ...

    def state(self) -> State:
        """Return how the service does."""
        ...

    def runs(self, pid: int) -> bool:
        """Return whether a process belongs to the service; nothing but the system is asked where that is enough."""
        ...

    def lingers(self) -> bool | None:
        """Return whether the service goes on when its owner logs out; None where that is not a matter of settings."""
        ...


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the system and return what it said.

    Raises:
        FileNotFoundError: there is no such program.
    """
    return subprocess.run(  # noqa: S603 (a word of ours, found in the owner's own PATH)
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, errors="replace"
    )


def reason(done: subprocess.CompletedProcess[str]) -> str:
    """Return the first line of why a program failed."""
    said = (done.stderr or done.stdout).strip()
    return said.partition("\n")[0].strip() or f"exit code {done.returncode}"


def checked(text: str, what: str) -> str:
    """Return a text that may stand in a service's file.

    Raises:
        ServiceError: it has control characters, or bytes that are no text (which are not printable either).
    """
    if not text.isprintable():
        raise ServiceError(f"{what} has characters that no service can be told", "choose another place for it")
    return text
