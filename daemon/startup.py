"""What starting needs: coded failures, steps with limits, a first password."""

import asyncio
import secrets
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from daemon.domain.errors import DaemonError
from daemon.domain.filters import EventFilter
from daemon.home import Home, HomeError
from daemon.lock import write_private
from daemon.log import Log
from daemon.log_events import last_logged_seq
from daemon.services.audit import Audit

T = TypeVar("T")

STEP_SECONDS = 30.0
RELOG_LIMIT = 10_000
"""Events that are logged again at most."""

EXIT_FAILED, EXIT_CONFIG, EXIT_AUTH = 1, 2, 4


class StartError(Exception):
    """The daemon cannot start.

    Args:
        message: one line that says what to do.
        exit_code: of the process.
    """

    def __init__(self, message: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


async def step(
    name: str, work: Awaitable[T], seconds: float = STEP_SECONDS, *, explain: Callable[[BaseException], str] = str
) -> T:
    """Await one step of the start within its limit.

    Args:
        name: what it does, as the failure says it.
        work: the step.
        seconds: its limit.
        explain: returns in one line what the cause of a coded error means.

    Raises:
        StartError: naming the step.
    """
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise StartError(f"could not {name} within {seconds:g} s") from None
    except DaemonError as error:
        cause = f" ({explain(error.__cause__)})" if error.__cause__ else ""
        raise StartError(f"could not {name}: {error.detail}{cause}") from None


def make_password(home: Home) -> str:
    """Make a master password where nobody is there to choose one, and say where it is.

    Raises:
        StartError: it cannot be kept.
    """
    password = secrets.token_urlsafe(24)
    if sys.stderr.isatty():
        print(f"The master password is: {password}\nIt is shown this once. Keep it.", file=sys.stderr)
        return password
    file = home.initial_password_file
    try:
        write_private(file, f"{password}\n".encode())
    except HomeError as error:
        raise StartError(str(error)) from None
    print(f"The master password is in {file}; the file goes at its first use.", file=sys.stderr)
    return password


def withdraw_password(home: Home) -> None:
    """Take back a password that was made while another daemon on the database set one."""
    home.initial_password_file.unlink(missing_ok=True)
    print("Another daemon on this database was first: its master password counts, not this one.", file=sys.stderr)


async def log_again(audit: Audit, log: Log, log_file: Path) -> int:
    """Log the events that a crash, or other daemons meanwhile, kept from the log; return the newest one's number."""
    head, seen = await audit.head(), last_logged_seq(log_file)
    after = max(seen or 0, head.seq - RELOG_LIMIT)
    while after < head.seq:
        found = await audit.find(EventFilter(after=after), 1000)
        if not found:
            break
        for event in found:
            log.audit(event)
        after = found[-1].seq
    return min(after, head.seq)
