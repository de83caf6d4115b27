"""The directory in which a command that `daemon run` runs finds its token."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from daemon.cli import base
from daemon.cli.failure import RUN_FAILED, Failure
from daemon.files import write_private


@contextlib.contextmanager
def handed_out(session_id: str, token: str) -> Iterator[Path]:
    """Yield the file with a session's token; at the end it is removed, with its directory.

    Raises:
        Failure: 125, it cannot be made.
    """
    directory = _directory(session_id)
    file = directory / "token"
    try:
        directory.mkdir(mode=0o700)
        write_private(file, f"{token}\n".encode())
    except OSError as error:
        remove(session_id)
        raise Failure(f"The token cannot be put into {directory}: {error.strerror}", RUN_FAILED) from None
    try:
        yield file
    finally:
        remove(session_id)


def remove(session_id: str) -> None:
    """Remove the directory of a session, if there is one."""
    shutil.rmtree(_directory(session_id), ignore_errors=True)


def _directory(session_id: str) -> Path:
    home = base.home()
    return (home.runtime_dir or home.temp_dir) / f"agent-daemon-run-{session_id}"
