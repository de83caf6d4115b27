"""How a command fails: one line that says what to do, and an exit code."""

from collections.abc import Mapping
from typing import Any

OK = 0
FAILED = 1
USAGE = 2
NOT_RUNNING = 3
NOT_AUTHENTICATED = 4
ALREADY_RUNNING = 5
STOP_TIMED_OUT = 6
RUN_FAILED = 125
"""`daemon run` failed itself; COMMAND has the other codes (as docker run, env(1) and timeout(1))."""
NOT_EXECUTABLE = 126
NOT_FOUND = 127
INTERRUPTED = 130

EXIT_CODES = {
    OK: "It is done.",
    FAILED: "It has failed, or the API has refused it.",
    USAGE: "The command line or the configuration is invalid.",
    NOT_RUNNING: "The daemon is not running.",
    NOT_AUTHENTICATED: "The master password or the ticket is not accepted, or owner routes are locked.",
    ALREADY_RUNNING: "The daemon is running already.",
    STOP_TIMED_OUT: "The daemon has not stopped in time.",
    RUN_FAILED: "`daemon run` itself has failed. Else its exit status is that of its COMMAND, or 128 and the signal's "
    "number.",
    NOT_EXECUTABLE: "The COMMAND of `daemon run` cannot be executed.",
    NOT_FOUND: "The COMMAND of `daemon run` was not found.",
    INTERRUPTED: "Ctrl-C.",
}
"""What each exit status means."""


class Failure(Exception):  # noqa: N818 (what the user is told, not a fault of the program)
    """A command ends with a message and an exit code.

    Args:
        message: one sentence, without a secret.
        code: the exit code.
        hint: what to do about it.

    Attributes:
        refusal: the API's code, where it was the API that refused.
        details: what the API told with it.
    """

    def __init__(self, message: str, code: int = FAILED, *, hint: str = "") -> None:
        super().__init__(f"{message} — {hint}" if hint else message)
        self.message = message
        self.code = code
        self.refusal = ""
        self.details: Mapping[str, Any] = {}


class Passing(Failure):
    """A failure that may be over in a moment: the daemon is away, starting, stopping or busy."""


class NotRunning(Passing):
    """No daemon runs in this home, or none answers at this URL."""
