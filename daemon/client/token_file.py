"""A token in a file that threads and processes share: never torn, read by its owner alone, renewed by one at a time."""

import contextlib
import errno
import fcntl
import os
import shlex
import stat
import threading
from pathlib import Path

from daemon.client.errors import TokenFileError
from daemon.domain.tokens import MAX_LENGTH
from daemon.files import PARTIAL, discard, sync

_ROOM = 2 * MAX_LENGTH
"""Bytes that are on the disk before a renewal: what it answers must not find the disk full."""

_open_locks: set[int] = set()
_opening = threading.Lock()


def _drop_locks_of_parent() -> None:
    """Close what a fork has copied, so that a lock ends with who holds it; to unlock would take it from the parent."""
    for descriptor in _open_locks:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _open_locks.clear()
    _opening.release()


os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_drop_locks_of_parent)


class FileClaim:
    """The right to renew the token of a file, held by one thread of one process until it is released."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._pid = os.getpid()
        self._made = path.with_name(f".{path.name}{PARTIAL}")

    def stage(self) -> None:
        """Prove that a new token can be stored, before the old one is given away for it.

        Raises:
            TokenFileError: it cannot.
        """
        try:
            discard(self._made)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(self._made, flags, 0o600), "wb") as file:
                file.write(b"\n" * _ROOM)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unusable(self._path, "cannot be replaced", error) from None

    def store(self, token: str) -> None:
        """Put the new token in the place of the old one: whole, and so that it survives a power cut.

        Raises:
            TokenFileError: it cannot be stored; the old one is in its place.
        """
        try:
            with self._made.open("r+b") as file:
                file.write(f"{token}\n".encode())
                file.truncate()
            sync(self._made)
            self._made.replace(self._path)
            sync(self._path.parent)
        except OSError as error:
            raise _unusable(self._path, "cannot be replaced", error) from None

    def release(self) -> None:
        """Let others renew."""
        if os.getpid() != self._pid:
            return
        with contextlib.suppress(OSError):
            discard(self._made)
        with _opening:
            _open_locks.discard(self._descriptor)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # also where a child between fork and exec has a copy
            os.close(self._descriptor)


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
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise _unusable(self.path, "cannot be read", error) from None
        try:
            self._check(os.fstat(descriptor))
            return os.read(descriptor, _ROOM).decode(errors="replace").strip()
        except OSError as error:
            raise _unusable(self.path, "cannot be read", error) from None
        finally:
            os.close(descriptor)

    def _check(self, found: os.stat_result) -> None:
        quoted = shlex.quote(str(self.path))
        if not stat.S_ISREG(found.st_mode):
            raise TokenFileError(f"The token file {self.path} is not a file")
        if found.st_uid != os.geteuid():
            raise TokenFileError(
                f"The token file {self.path} belongs to another user; remove it, and ask the owner for a new session"
            )
        if found.st_mode & 0o077:
            raise TokenFileError(f"Others can use the token file {self.path}; run: chmod 600 {quoted}")

    def claim(self) -> FileClaim | None:
        """Return the right to renew, or None while somebody else has it.

        Raises:
            TokenFileError: it cannot be locked.
        """
        lock = self.path.with_name(f"{self.path.name}.lock")
        with _opening:
            try:
                descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise _unusable(lock, "cannot be locked", error) from None
            _open_locks.add(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            with _opening:
                _open_locks.discard(descriptor)
                os.close(descriptor)
            if error.errno in {errno.EAGAIN, errno.EACCES}:
                return None
            raise _unusable(lock, "cannot be locked", error) from None
        return FileClaim(self.path, descriptor)


def _unusable(path: Path, what: str, error: OSError) -> TokenFileError:
    reason = "it is a symbolic link" if error.errno in {errno.ELOOP, errno.EMLINK} else error.strerror
    return TokenFileError(f"The token file {path} {what}: {reason}")
