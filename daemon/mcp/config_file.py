"""Changes a client's configuration file: nobody sees half of it, and no other writer's change is lost."""

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from daemon import files
from daemon.mcp.json_text import TextError

PATIENCE = 5.0
"""Seconds to wait for another program that is writing the file."""
STALE = 10.0
"""Seconds after which a lock that nobody renews was left by a program that died."""

_LOOK_EVERY = 0.02


class ConfigError(Exception):
    """The file is left as it was; the message is one sentence, with what to do."""


def edit(path: Path, change: Callable[[str], str], *, mode: int) -> bool:
    """Change a file's text and return whether that made a difference; permissions stay, a link stays a link.

    Args:
        path: the file; one that is missing is an empty text, and made with its directories.
        change: returns the new text, or raises TextError.
        mode: permissions of a file that is made, cut by the umask.

    Raises:
        ConfigError: the text is not what it must be, or another program does not let go of the file.
        OSError: it cannot be read or written.
    """
    if not path.exists() and not change(""):
        return False
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(path):
        before = _read(path)
        try:
            after = change(before)
        except TextError as error:
            raise ConfigError(f"{path} {error}; nothing was changed: mend it first") from None
        if after == before:
            return False
        _replace(Path(os.path.realpath(path)), after.encode(), mode)
        return True


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8; nothing was changed: mend it first") from None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock that Claude Code itself takes when it writes its configuration.

    It is a directory beside the file, as npm's proper-lockfile makes it: whoever makes it has it, and one that was not
    touched for ten seconds is nobody's.
    """
    lock = path.with_name(f"{path.name}.lock")
    deadline = time.monotonic() + PATIENCE
    while not _taken(lock):
        if time.monotonic() > deadline:
            raise ConfigError(f"another program is writing {path}; nothing was changed: try again")
        time.sleep(_LOOK_EVERY)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.rmdir()


def _taken(lock: Path) -> bool:
    try:
        lock.mkdir()
    except FileExistsError:
        with contextlib.suppress(OSError):
            if time.time() - lock.stat().st_mtime > STALE:
                lock.rmdir()
        return False
    return True


def _replace(path: Path, content: bytes, mode: int) -> None:
    made = files.partial_of(path)
    made.unlink(missing_ok=True)
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if path.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
            file.write(content)
        files.sync(made)
        made.replace(path)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
    files.sync(path.parent)
