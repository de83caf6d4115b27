"""One file of a supervised process's output: read from any offset, and freed from its head without a new name."""

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from daemon.supervision.lines import LINE_LIMIT

_STEP = 65_536
_BLOCK = 4_096
"""The smallest block that is freed: no file system in use has larger ones without saying so."""
_KEEP_SIZE_PUNCH_HOLE = 1 | 2  # FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE (<linux/falloc.h>)
_F_PUNCHHOLE = 99  # <sys/fcntl.h> of macOS
_PUNCHHOLE = struct.Struct("IIqq")  # fp_flags, reserved, fp_offset, fp_length
_NO_FILE = {errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR}  # a link; a socket or device; a directory
_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)

_libc = ctypes.CDLL(None, use_errno=True)


class Gone(Exception):  # noqa: N818 (what a reader is told, not a fault)
    """What a reader wants is not in the file any more: it was freed, or the process has emptied its output itself.

    Args:
        first_kept: where the first line begins that is still there, as a byte offset.
    """

    def __init__(self, first_kept: int) -> None:
        super().__init__(f"The first byte that is kept is {first_kept}")
        self.first_kept = first_kept


class NotAFileError(OSError):
    """In the place of the output is a link, a directory, a pipe or a device: it is not followed."""


class OutputFile:
    """Bytes that a process appends to a regular file; a file that is missing is empty.

    What is freed becomes a hole at the head of the file, so the file itself tells what is kept: nothing is remembered,
    and any number of objects may use one file. No method keeps it open; all may wait for a disk but `read_now`. All
    but `free` raise `NotAFileError` where the path is no regular file, and `OSError` where it cannot be read.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def size(self) -> int:
        """Return the offset after the last byte: freed bytes count."""
        with self._opened() as fd:
            return 0 if fd is None else os.fstat(fd).st_size

    def read(self, offset: int, limit: int) -> bytes:
        """Return up to `limit` bytes from `offset` on; none at the end of the file.

        Raises:
            Gone: some of them are freed, or the file ends before `offset`.
        """
        with self._opened() as fd:
            return _nothing(offset) if fd is None else _checked(fd, offset, os.pread(fd, limit, offset))

    def read_now(self, offset: int, limit: int) -> bytes | None:
        """Return as `read` does, but fewer bytes, or None, where more might have to wait for a disk.

        Raises:
            Gone: likewise.
        """
        with self._opened() as fd:
            if fd is None:
                return _nothing(offset)
            left = max(0, os.fstat(fd).st_size - offset)
            found = _in_memory(fd, offset, min(left, limit), tail=left <= limit)
            return None if found is None else _checked(fd, offset, found)

    def first_kept(self) -> int:
        """Return the offset where the first whole line begins that is still there; 0 if nothing was freed.

        Where the head's rest has no newline within a line's limit, it is the first byte of that rest.
        """
        with self._opened() as fd:
            return 0 if fd is None else _first_line(fd)

    def kept_bytes(self) -> int:
        """Return the bytes from the first block that takes room on the disk up to the end of the file.

        What a file system charges for them may differ: it compresses, or sets room aside for what comes. After
        `free(size() - n)` they are at most `n` and one block.
        """
        with self._opened() as fd:
            return 0 if fd is None else os.fstat(fd).st_size - _first_byte(fd)

    def free(self, until: int) -> bool:
        """Give the disk back the whole blocks before an offset; what is left of the last block stays.

        Args:
            until: where a line ends that nobody needs any more, as a byte offset.

        Returns:
            False where the file system cannot, or would not tell afterwards what is freed; nothing is lost then.
        """
        with contextlib.suppress(OSError), self._opened(os.O_RDWR) as fd:
            return fd is None or _freed(fd, until)
        return False

    @contextlib.contextmanager
    def _opened(self, flags: int = os.O_RDONLY) -> Iterator[int | None]:
        """Open the file for the block; None where it is missing."""
        try:
            # A pipe that has no other end must not be waited for.
            fd = os.open(self.path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            if error.errno in _NO_FILE:
                raise self._refused() from None
            raise
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise self._refused()
            yield fd
        finally:
            os.close(fd)

    def _refused(self) -> NotAFileError:
        return NotAFileError(errno.EINVAL, "not a regular file", str(self.path))


def _nothing(offset: int) -> bytes:
    """Return what a missing file has, which ends at 0."""
    if offset:
        raise Gone(0)
    return b""


def _in_memory(fd: int, offset: int, size: int, *, tail: bool) -> bytes | None:
    """Read what the kernel has in memory; None where nothing is, or nobody knows and it is not the end of the file."""
    buffer = bytearray(size)
    try:
        if _NOWAIT is not None:
            return bytes(memoryview(buffer)[: os.preadv(fd, [buffer], offset, _NOWAIT)])
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
    # What was appended just now is in memory whatever the file system.
    return os.pread(fd, size, offset) if tail else None


def _checked(fd: int, offset: int, data: bytes) -> bytes:
    """Return what was read, unless it is not what was written: a hole reads as NUL, which also may be real."""
    shrunk = not data and offset > os.fstat(fd).st_size
    if shrunk or (b"\0" in data and _seek(fd, offset, os.SEEK_HOLE) < offset + len(data)):
        raise Gone(_first_line(fd))
    return data


def _seek(fd: int, offset: int, whence: int) -> int:
    """Return where the next data or hole is, at `offset` or later; the end of the file is a hole."""
    try:
        return os.lseek(fd, offset, whence)
    except OSError as error:
        # No data follows; any other error is a file system that shows no holes.
        none_follows = error.errno == errno.ENXIO
        return offset if whence == os.SEEK_DATA and not none_follows else os.fstat(fd).st_size


def _first_byte(fd: int) -> int:
    """Return the offset after the last hole: one that a crash has cut short leaves data before it."""
    size = os.fstat(fd).st_size  # before the holes: the end of a file that grows must not look like one
    start = _seek(fd, 0, os.SEEK_DATA)
    while start < size and (hole := _seek(fd, start, os.SEEK_HOLE)) < size:
        start = _seek(fd, hole, os.SEEK_DATA)
    return min(start, size)


def _first_line(fd: int) -> int:
    start = _first_byte(fd)
    for at in range(start, start + LINE_LIMIT, _STEP) if start else ():
        chunk = os.pread(fd, _STEP, at)
        if (found := chunk.find(b"\n")) >= 0:
            return at + found + 1
        if len(chunk) < _STEP:
            break
    return start


def _freed(fd: int, until: int) -> bool:
    found = os.fstat(fd)
    block = max(_BLOCK, found.st_blksize)
    # The newline before `until` stays: else nobody could tell that a line begins there.
    end = (min(until, found.st_size) - 1) // block * block
    return end <= 0 or (_shows_holes(fd, block) and _punch(fd, end))


def _shows_holes(fd: int, block: int) -> bool:
    """Free the first block and return whether the file tells it; else put the block back."""
    if _seek(fd, 0, os.SEEK_DATA) >= block:
        return True
    head = os.pread(fd, block, 0)
    if not _punch(fd, block):
        return False
    if _seek(fd, 0, os.SEEK_DATA) >= block:
        return True
    os.pwrite(fd, head, 0)
    return False


def _punch(fd: int, end: int) -> bool:
    if sys.platform == "darwin":
        fcntl.fcntl(fd, _F_PUNCHHOLE, _PUNCHHOLE.pack(0, 0, 0, end))
        return True
    # musl knows one name only, and the plain one of a 32-bit glibc takes short offsets.
    fallocate = getattr(_libc, "fallocate64", None) or _libc.fallocate
    while fallocate(fd, _KEEP_SIZE_PUNCH_HOLE, ctypes.c_int64(0), ctypes.c_int64(end)):
        if ctypes.get_errno() != errno.EINTR:
            return False
    return True
