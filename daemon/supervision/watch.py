"""Tells the event loop which files of a directory have changed: by inotify, else by looking."""

import asyncio
import ctypes
import errno
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

GATHER_SECONDS = 0.005
"""How long changes are gathered after some were told; the first one after a silence is told at once."""
POLL_SECONDS = 0.05
"""Between two looks at a directory that is polled and has changed within the last second."""
POLL_IDLE_SECONDS = 0.5
"""What that grows to while nothing changes."""

_BUSY_SECONDS = 1.0
_SLOWER = 1.5
_EVENT = struct.Struct("iIII")  # wd, mask, cookie, len; the name follows (inotify(7))
_READ_BYTES = 32_768
"""About a thousand events: as many as may be taken apart without holding the loop up."""
_MODIFY, _MOVED_TO, _CREATE = 0x2, 0x80, 0x100
_QUEUE_OVERFLOW, _IGNORED = 0x4000, 0x8000
_MASK = _MODIFY | _MOVED_TO | _CREATE | 0x1000000 | 0x2000000  # IN_ONLYDIR, IN_DONT_FOLLOW

_libc = ctypes.CDLL(None, use_errno=True)

Callback = Callable[[str], None]


class Watcher:
    """Calls back when a file in a watched directory has appeared or was written to; one for the whole daemon.

    Only the event loop's thread uses it, between `start` and `close`. However often a file was written to, its name is
    told once in `GATHER_SECONDS`, so that a flood costs next to nothing; a name may also be told without a change. On
    Linux silence costs nothing. A directory that the kernel cannot or will not watch is looked at instead.
    """

    def __init__(self) -> None:
        self._callbacks: dict[Path, list[Callback]] = {}
        self._polled: dict[Path, _Poll] = {}
        self._inotify: _Inotify | None = None
        self._loop: asyncio.AbstractEventLoop

    async def start(self) -> None:
        """Begin on the running loop; where there is no inotify, or no more of it, everything will be polled."""
        self._loop = asyncio.get_running_loop()
        try:
            self._inotify = _Inotify(self._loop, self._changed)
        except (OSError, AttributeError):
            self._inotify = None

    async def close(self) -> None:
        """Forget every directory; no callback comes after."""
        for directory in list(self._callbacks):
            self._forget(directory)
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    @property
    def polled(self) -> int:
        """Return how many directories are looked at because the kernel does not watch them."""
        return len(self._polled)

    def watch(self, directory: Path, callback: Callback) -> None:
        """Call back with the names of files that change from now on.

        Args:
            directory: what is in its directories is not watched.
            callback: called on the loop's thread; several may be interested in one directory.
        """
        callbacks = self._callbacks.setdefault(directory, [])
        callbacks.append(callback)
        if len(callbacks) > 1:
            return
        try:
            if self._inotify is not None:
                self._inotify.add(directory)
                return
        except OSError:
            pass  # too many are watched (ENOSPC), or the directory is not there yet: looking finds it
        self._polled[directory] = _Poll(self._loop, directory, self._changed)

    def unwatch(self, directory: Path, callback: Callback) -> None:
        """Call this callback no more for a directory; without effect where it is not called anyway."""
        callbacks = self._callbacks.get(directory, [])
        if callback in callbacks:
            callbacks.remove(callback)
            if not callbacks:
                self._forget(directory)

    def _forget(self, directory: Path) -> None:
        del self._callbacks[directory]
        if (poll := self._polled.pop(directory, None)) is not None:
            poll.close()
        elif self._inotify is not None:
            self._inotify.remove(directory)

    def _changed(self, directory: Path, name: str) -> None:
        for callback in self._callbacks.get(directory, ()):
            # Later and one by one: a callback that fails is the loop's to report, and does not keep others from theirs.
            self._loop.call_soon(self._call, directory, callback, name)

    def _call(self, directory: Path, callback: Callback, name: str) -> None:
        if callback in self._callbacks.get(directory, ()):
            callback(name)


class _Inotify:
    """The kernel's watches.

    It is about sixty lines, not the package `asyncinotify`: that one builds five objects for each event before any can
    be merged, so that two processes that print without a pause take up the whole loop with news of themselves.

    Args:
        loop: whose thread everything happens on.
        changed: what to tell, with directory and name.

    Raises:
        OSError: there is no more of it.
        AttributeError: the system has none.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, changed: Callable[[Path, str], None]) -> None:
        self._fd = _result(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._loop = loop
        self._changed = changed
        self._watches: dict[Path, int] = {}
        self._directories: dict[int, Path] = {}
        self._pause: asyncio.TimerHandle | None = None
        loop.add_reader(self._fd, self._readable)

    def add(self, directory: Path) -> None:
        watch = _result(_libc.inotify_add_watch(self._fd, os.fsencode(directory), _MASK))
        if watch in self._directories:  # the kernel knows it by another path
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(directory))
        self._watches[directory] = watch
        self._directories[watch] = directory

    def remove(self, directory: Path) -> None:
        watch = self._watches.pop(directory)
        if self._directories.pop(watch, None) is not None:
            _libc.inotify_rm_watch(self._fd, watch)

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        if self._pause is not None:
            self._pause.cancel()
        os.close(self._fd)

    def _readable(self) -> None:
        self._loop.remove_reader(self._fd)
        self._look()

    def _look(self) -> None:
        """Tell what has happened, and look again after a pause; once nothing has, wait for the kernel."""
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            self._pause = None
            self._loop.add_reader(self._fd, self._readable)
            return
        self._pause = self._loop.call_later(GATHER_SECONDS, self._look)
        for watch, mask, name in set(_events(data)):
            self._tell(watch, mask, name)

    def _tell(self, watch: int, mask: int, name: bytes) -> None:
        directory = self._directories.get(watch)
        if mask & _QUEUE_OVERFLOW:
            self._tell_all()
        elif directory is not None and mask & _IGNORED:  # it was removed
            del self._directories[watch]
        elif directory is not None:
            self._changed(directory, os.fsdecode(name.rstrip(b"\0")))

    def _tell_all(self) -> None:
        """Tell of every file: the kernel has dropped events."""
        for directory in self._directories.values():
            for name in _files(directory):
                self._changed(directory, name)


def _events(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield watch, mask and name of each event."""
    at = 0
    while at < len(data):
        watch, mask, _, length = _EVENT.unpack_from(data, at)
        at += _EVENT.size + length
        yield watch, mask, data[at - length : at]


class _Poll:
    """One directory that is looked at, often while it changes.

    Args:
        loop: whose thread everything happens on.
        directory: where; it may be missing.
        changed: what to tell, with directory and name.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, directory: Path, changed: Callable[[Path, str], None]) -> None:
        self._loop = loop
        self._directory = directory
        self._changed = changed
        self._seen = _files(directory)
        self._changed_at = loop.time()
        self._wait = POLL_SECONDS
        self._timer = loop.call_later(self._wait, self._look)

    def close(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now, found = self._loop.time(), _files(self._directory)
        for name in [name for name, state in found.items() if self._seen.get(name) != state]:
            self._changed_at = now
            self._changed(self._directory, name)
        self._seen = found
        busy = now - self._changed_at < _BUSY_SECONDS
        self._wait = POLL_SECONDS if busy else min(self._wait * _SLOWER, POLL_IDLE_SECONDS)
        self._timer = self._loop.call_later(self._wait, self._look)


def _files(directory: Path) -> dict[str, Any]:
    """Return the files of a directory and what changes when they do; none where it is missing."""
    found = dict[str, Any]()
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                state = entry.stat(follow_symlinks=False)
                found[entry.name] = (state.st_ino, state.st_size, state.st_mtime_ns)
    except OSError:
        pass  # it goes just now, or one of its files does: the next look sees it
    return found


def _result(value: int) -> int:
    if value < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return value
