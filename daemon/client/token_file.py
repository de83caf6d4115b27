"""A token in a file that threads and processes share: never torn, read by its owner alone, renewed by one at a time."""

import contextlib
import errno
import fcntl
import os
import shlex
import stat
import threading
from pathlib import Path

from daemon import files
from daemon.client.errors import TokenFileError
from daemon.domain.tokens import MAX_LENGTH

_ROOM = 2 * MAX_LENGTH
"""Bytes that are taken on the disk before a renewal, and the most that is read of a file."""

_locked: set[int] = set()
_opening = threading.Lock()


def _drop_locks_of_parent() -> None:
    """Close what a fork has copied, so that a lock ends with who holds it; to unlock would take it from the parent."""
    for descriptor in _locked:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _locked.clear()
    _opening.release()


os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_drop_locks_of_parent)


class FileClaim:
    """The right to renew the token of a file: one thread of one process has it, until it is released or that ends.

    It is a lock of flock(2) on a file of its own: the file with the token is another one after each renewal.

    Args:
        path: of the token.
        descriptor: of the locked file.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._made: Path | None = None
        self._room = contextlib.ExitStack()

    def stage(self) -> None:
        """Prove that a new token can be stored, before the old one is given away for it.

        Raises:
            TokenFileError: it cannot.
        """
        try:
            self._made = self._room.enter_context(files.partial(self._path))
            files.reserve(self._made, _ROOM)
        except OSError as error:
            raise _unusable(self._path, "cannot be replaced", error) from None

    def store(self, token: str) -> None:
        """Put the new token in the place of the old one, in the room that was staged for it.

        Raises:
            TokenFileError: it cannot be stored; the old one is in its place.
        """
        assert self._made is not None, "stage() comes first"  # noqa: S101 (an order of calls, not of input)
        try:
            files.replace(self._made, self._path, f"{token}\n".encode())
        except OSError as error:
            raise _unusable(self._path, "cannot be replaced", error) from None

    def release(self) -> None:
        """Let others renew."""
        with contextlib.suppress(OSError):
            self._room.close()
        _unlock(self._descriptor)


class TokenFile:
    """A file with a session's token and a newline.

    Args:
        path: of the file; beside it `PATH.lock` is made, and stays.
    """

    may_renew = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.origin = f"the token file {path}"

    def read(self) -> str:
        """Return the token.

        Raises:
            TokenFileError: there is none, or others could have read or put it.
        """
        descriptor = _opened(self.path, os.O_RDONLY, "cannot be read")
        try:
            return os.read(descriptor, _ROOM).decode(errors="replace").strip()
        except OSError as error:
            raise _unusable(self.path, "cannot be read", error) from None
        finally:
            os.close(descriptor)

    def claim(self) -> FileClaim | None:
        """Return the right to renew, or None while somebody else has it.

        Raises:
            TokenFileError: it cannot be locked.
        """
        lock = self.path.with_name(f"{self.path.name}.lock")
        with _opening:
            descriptor = _opened(lock, os.O_RDWR | os.O_CREAT, "cannot be locked")
            _locked.add(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            _unlock(descriptor)
            if error.errno in {errno.EAGAIN, errno.EACCES}:
                return None
            raise _unusable(lock, "cannot be locked", error) from None
        return FileClaim(self.path, descriptor)


def _opened(path: Path, flags: int, what: str) -> int:
    """Open a file that is private to this user.

    Raises:
        TokenFileError: it is not, or cannot be opened.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise _unusable(path, what, error) from None
    try:
        _check(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise TokenFileError(f"{path} is not a file")
    if found.st_uid != os.geteuid():
        raise TokenFileError(f"{path} belongs to another user; a token file and its lock must be your own")
    if found.st_mode & 0o077:
        raise TokenFileError(f"Others can use {path}; run: chmod 600 {shlex.quote(str(path))}")


def _unlock(descriptor: int) -> None:
    """Unlock and close: a child between fork and exec may have a copy, which must not keep the lock."""
    with _opening:
        if descriptor in _locked:  # else this is a child, and it has been closed at its fork
            _locked.discard(descriptor)
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


def _unusable(path: Path, what: str, error: OSError) -> TokenFileError:
    reason = "it is a symbolic link" if error.errno in {errno.ELOOP, errno.EMLINK} else error.strerror
    return TokenFileError(f"{path} {what}: {reason}")
