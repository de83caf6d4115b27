"""Where log lines end: a file that is rotated, and a stream that may block or break."""

import fcntl
import os
import select
import threading
from collections import deque
from pathlib import Path

from daemon.log_events import log_files


class FileSink:
    """An append-only file of whole lines, mode 0600, rotated by size as `NAME.1`, `NAME.2` …

    Args:
        path: the file; its directory is made (0700) when it is missing.
        max_size: bytes at which the file is rotated.
        max_files: rotated files that are kept.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, max_size: int, max_files: int) -> None:
        self.path = path
        self.max_size = max_size
        self.max_files = max_files
        self._fd = self._open()

    def write(self, lines: list[bytes]) -> int:
        """Write lines, each with its newline, and return how many stand in the file whole.

        Never raises: fewer than all means that the disk is full or the file is gone.
        """
        written = 0
        try:
            while written < len(lines):
                room = self._room(len(lines[written]))
                part = _fitting(lines, written, room)
                done = self._append(lines[written : written + part])
                written += done
                if done < part:
                    break
        except OSError:
            pass
        return written

    def reopen(self) -> None:
        """Open the path anew after somebody moved the file away; what was written stands in the moved file.

        Raises:
            OSError: the path cannot be opened; the old file stays in use.
        """
        fresh = self._open()
        os.close(self._fd)
        self._fd = fresh

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _open(self) -> int:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self.path, flags, 0o600)
        os.fchmod(fd, 0o600)
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            # A power cut can leave half a line; the next one must not be glued to it.
            os.write(fd, b"\n")
        return fd

    def _room(self, needed: int) -> int:
        """Return how many bytes the file may still grow, after making room for `needed` if it can."""
        size = os.fstat(self._fd).st_size
        fits = not size or size + needed <= self.max_size
        current = self._is_current()
        if fits and current:
            return self.max_size - size
        if current:
            self._rotate()
        self.reopen()
        return self.max_size - os.fstat(self._fd).st_size

    def _is_current(self) -> bool:
        # Somebody may move or delete the file and tell us late, or never.
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._fd))
        except FileNotFoundError:
            return False

    def _rotate(self) -> None:
        for path in reversed([path for path in log_files(self.path) if path != self.path]):
            number = int(path.suffix[1:])
            if number >= self.max_files:
                path.unlink(missing_ok=True)
            else:
                path.replace(self.path.with_name(f"{self.path.name}.{number + 1}"))
        self.path.replace(self.path.with_name(f"{self.path.name}.1"))

    def _append(self, lines: list[bytes]) -> int:
        before = os.fstat(self._fd).st_size
        data = b"".join(lines)
        done = 0
        try:
            while done < len(data):
                done += os.write(self._fd, data[done:])
        except OSError:
            whole, size = _whole_lines(lines, done)
            os.ftruncate(self._fd, before + size)
            return whole
        return len(lines)


def _fitting(lines: list[bytes], start: int, room: int) -> int:
    """Return how many lines fit into `room` bytes, at least one: a line that never fits goes in alone."""
    count = 0
    for line in lines[start:]:
        room -= len(line)
        if room < 0 and count:
            break
        count += 1
    return count


def _whole_lines(lines: list[bytes], size: int) -> tuple[int, int]:
    count = total = 0
    for line in lines:
        if total + len(line) > size:
            break
        total += len(line)
        count += 1
    return count, total


class StreamSink:
    """Standard output, on a thread of its own: a reader that stops reading must not hold up the file.

    Args:
        fd: the descriptor; a copy of it is used.
        limit: lines kept while nobody reads; more are dropped.
    """

    def __init__(self, fd: int, limit: int) -> None:
        # A copy: descriptor 1 may be closed later, and its number given to another file.
        self._fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
        self._limit = limit
        self._queue: deque[bytes | threading.Event | None] = deque()
        self._wake = threading.Event()
        self._gone = False
        self._thread = threading.Thread(target=self._run, name="log-stream", daemon=True)
        self._thread.start()

    def write(self, lines: list[bytes]) -> int:
        """Queue lines and return how many were accepted; never blocks."""
        if self._gone:
            return len(lines)
        accepted = lines[: max(0, self._limit - len(self._queue))]
        self._queue.extend(accepted)
        self._wake.set()
        return len(accepted)

    def flush(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until everything queued is written, and return whether it is."""
        done = threading.Event()
        self._queue.append(done)
        self._wake.set()
        return self._gone or done.wait(timeout)

    def close(self, timeout: float) -> None:
        """Write what is queued within `timeout` seconds, then end the thread."""
        self._queue.append(None)
        self._wake.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            while self._drain():
                self._wake.wait()
                self._wake.clear()
        except OSError:
            # The reader is gone (`daemon start | head`): the file goes on alone.
            pass
        # In this order: whoever queues later sees the flag, whoever queued before is released.
        self._gone = True
        self._release()
        os.close(self._fd)

    def _drain(self) -> bool:
        """Write what is queued and return whether more may come."""
        while self._queue:
            item = self._queue.popleft()
            if item is None:
                return False
            if isinstance(item, bytes):
                self._put(item)
            else:
                item.set()
        return True

    def _release(self) -> None:
        for item in list(self._queue):
            if isinstance(item, threading.Event):
                item.set()

    def _put(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                select.select([], [self._fd], [])
