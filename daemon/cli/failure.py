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
