"""Who runs in a home: the lock that keeps a second daemon out, and the files that say who holds it."""

import errno
import fcntl
import os
import stat
import struct
import sys
from pathlib import Path

import msgspec

from daemon import files
from daemon.home import Home, HomeError
from daemon.run_info import RunInfo, read_info

_LOCK_ATTEMPTS = 100
_FLOCK_LINUX = struct.Struct("hhqqi4x")  # l_type, l_whence, l_start, l_len, l_pid (fcntl(2))
_FLOCK_DARWIN = struct.Struct("qqihh")  # l_start, l_len, l_pid, l_type, l_whence (<sys/fcntl.h>)

_held: dict[tuple[int, int], int] = {}
"""Device and inode of each lock file that is held, and by whom: a forked child inherits the entry, not the lock."""


class AlreadyRunning(Exception):  # noqa: N818 (what the CLI tells the owner, not a fault)
    """A daemon holds the home's lock.

    Args:
        pid: the holder.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(f"The daemon is already running (pid {pid})")
        self.pid = pid


class HomeLock:
    """The lock that keeps a second daemon out of the home.

    It is a POSIX record lock: the kernel drops it when the process ends in whatever way, no child inherits it, and
    anyone may ask for its holder's pid (`lock_holder`). Its price: it drops as soon as the process closes *any*
    descriptor of the file. So nothing but this module may open `daemon.lock`, and no process may lock before it forks
    itself into the background. A second lock in the same process is refused here, since the kernel would grant it.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._fd: int | None = None
        self._key = (0, 0)

    def acquire(self) -> None:
        """Take the lock, without waiting, and hold it until `release` or the end of the process.

        Raises:
            AlreadyRunning: with the pid of who holds it.
            HomeError: the lock cannot be taken, or its holder is on another machine or in another container.
        """
        path = self._home.lock_file
        if _is_ours(path):
            raise AlreadyRunning(os.getpid())
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise _unusable(path, error) from None
        try:
            self._lock(fd)
        except BaseException:
            os.close(fd)
            raise
        found = os.fstat(fd)
        self._fd, self._key = fd, (found.st_dev, found.st_ino)
        _held[self._key] = os.getpid()

    def _lock(self, fd: int) -> None:
        path = self._home.lock_file
        for _ in range(_LOCK_ATTEMPTS):
            try:
                os.fchmod(fd, 0o600)
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in {errno.EACCES, errno.EAGAIN}:
                    raise _unusable(path, error) from None
            else:
                return
            # Between the two calls the holder may have ended: then the lock is free, and we try again.
            if (pid := _holder(fd, path)) is not None:
                raise AlreadyRunning(pid)
        raise HomeError(f"{path} is locked, but by nobody the file system can name", "choose another --home")

    def release(self) -> None:
        """Give the lock back; once is enough, more does no harm."""
        if self._fd is not None:
            _held.pop(self._key, None)
            os.close(self._fd)
            self._fd = None

    def announce(self, info: RunInfo) -> None:
        """Write the pid file and `daemon.json`.

        Raises:
            HomeError: the home cannot be written.
        """
        self._must_hold()
        write_private(self._home.pid_file, f"{info.pid}\n".encode())
        write_private(self._home.json_file, msgspec.json.encode(info) + b"\n")

    def leftovers(self) -> list[Path]:
        """Remove pid file, `daemon.json` and socket, at the stop or after a crash.

        Returns:
            What was there and is removed now: at a start, what a crashed daemon left behind.
        """
        self._must_hold()
        sockets = {self._home.socket_path}
        info = read_info(self._home)
        if info and info.socket and Path(info.socket).name == self._home.socket_name:
            # A crashed daemon may have had another runtime directory. In a copied home, though, daemon.json names a
            # socket of the original, which may well be in use.
            sockets.add(Path(info.socket))
        ours = [self._home.pid_file, self._home.json_file]
        ours += [files.partial_of(path) for path in ours]
        return [path for path in [*sorted(sockets), *ours] if _removed(path, socket=path in sockets)]

    def _must_hold(self) -> None:
        if self._fd is None or _held.get(self._key) != os.getpid():
            raise RuntimeError("the home's lock is not held")


def lock_holder(home: Home) -> int | None:
    """Return the pid of the daemon that holds the home's lock, or None where none does.

    Raises:
        HomeError: the lock file cannot be opened, or its holder is on another machine or in another container.
    """
    path = home.lock_file
    if _is_ours(path):
        return os.getpid()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unusable(path, error) from None
    try:
        return _holder(fd, path)
    finally:
        os.close(fd)


def write_private(path: Path, data: bytes) -> None:
    """Replace a file of the home atomically, 0600 whatever it was. The caller holds the home's lock.

    Raises:
        HomeError: the file cannot be written.
    """
    try:
        files.write_private(path, data)
    except OSError as error:
        raise _unusable(path, error) from None


def _removed(path: Path, *, socket: bool) -> bool:
    try:
        found = path.lstat()
        if stat.S_ISSOCK(found.st_mode) is not socket:
            return False
        path.unlink()
    except OSError:
        return False
    return True


def _is_ours(path: Path) -> bool:
    """Return whether this process holds the lock: to open the file and ask the kernel would drop it."""
    try:
        found = path.stat()
    except OSError:
        return False
    return _held.get((found.st_dev, found.st_ino)) == os.getpid()


def _holder(fd: int, path: Path) -> int | None:
    if sys.platform == "darwin":
        asked = _FLOCK_DARWIN.pack(0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET)
        _, _, pid, kind, _ = _FLOCK_DARWIN.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    else:
        asked = _FLOCK_LINUX.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = _FLOCK_LINUX.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    if kind == fcntl.F_UNLCK:
        return None
    if pid <= 0:
        # The kernel has no number for a process of another pid namespace, or of another client of a shared disk.
        raise HomeError(f"{path} is held from another container or machine", "stop the daemon there")
    return int(pid)


def _unusable(path: Path, error: OSError) -> HomeError:
    return HomeError(f"{path} cannot be used: {error.strerror}", "choose another --home, or mend its permissions")
