"""Writes lines to an agent's stdin without ever blocking the loop, so that a crash leaves told what has entered."""

import asyncio
import contextlib
import enum
import errno
import fcntl
import os
import re
import struct
import sys
import termios
from pathlib import Path
from typing import NamedTuple

PIPE_LIMIT = 1_048_576
"""How large a pipe an unprivileged process may have on Linux, in bytes."""

_SENT = "sent"
_PAGE = 4096
_RECORD = re.compile(rb" *(\d+) +(-?\d+) +(\d+)\n")
_UNKNOWN = -1
_RECORD_LIMIT = 64


class StdinClosed(Exception):  # noqa: N818 (an agent that has ended is no fault)
    """Nobody can read the line: the agent and the keeper of its stdin are gone, or a line was cut short before it."""


class Progress(NamedTuple):
    """What the last record says: of which turn, how many bytes entered (-1: unknown), and how many there were."""

    turn: int
    entered: int
    total: int


class Entered(enum.Enum):
    """Whether a turn's line is in the FIFO, or was read from it."""

    NEVER = "never"
    WHOLE = "whole"
    UNCERTAIN = "uncertain"


class Stdin:
    """The writing end of an agent's stdin; there is one, and what it does is recorded in the file `sent`.

    A line that an earlier daemon left cut short is not ended here: where `entered` is uncertain of it, the caller may
    begin with an empty line.

    Args:
        directory: the session's own, where the keeper holds `stdin` open.

    Raises:
        StdinClosed: nobody has it open for reading.
        OSError: it cannot be opened, or the record cannot be kept.
    """

    def __init__(self, directory: Path) -> None:
        flags = os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._fd = os.open(directory / "stdin", os.O_WRONLY | os.O_NONBLOCK | flags)
        except OSError as error:
            if error.errno not in {errno.ENXIO, errno.ENOENT}:
                raise
            raise StdinClosed("stdin has no reader") from None
        try:
            self._record = os.open(directory / _SENT, os.O_WRONLY | os.O_CREAT | flags, 0o600)
        except BaseException:
            os.close(self._fd)
            raise
        self._one_at_a_time = asyncio.Lock()
        self._waiting: asyncio.Future[None] | None = None
        self._cut = False

    async def write(self, turn: int, line: bytes) -> None:
        """Write a line and return when all of it is in the FIFO; lines enter in the order of the calls.

        A line that is cancelled when part of it has entered stays so, and no other can follow it: `entered` tells.

        Args:
            turn: number of the line, larger than that of the one before; from 0 on.
            line: with its newline.

        Raises:
            StdinClosed: nobody can read it any more, or not as a line.
            OSError: the record cannot be kept; nothing of the line was written.
        """
        async with self._one_at_a_time:
            if self._cut:
                raise StdinClosed("a line before this one was cut short")
            if self._fd >= 0:
                _make_room(self._fd, len(line))
            await self._enter(turn, line)

    async def interject(self, line: bytes) -> None:
        """Write a line that is no turn, such as a request to interrupt one; nothing is recorded of it.

        Args:
            line: with its newline; so short that it enters whole or not at all.

        Raises:
            StdinClosed: nobody can read it any more, or not as a line.
        """
        async with self._one_at_a_time:
            if self._cut:
                raise StdinClosed("a line before this one was cut short")
            while not (written := self._write(memoryview(line))):
                if written is None:
                    raise StdinClosed("stdin has no reader, or was closed")
                await self._writable()

    async def _enter(self, turn: int, line: bytes) -> None:
        entered, total = 0, len(line)
        try:
            while entered < total:
                if not entered:  # a kill after the write and before the record must not look like no write
                    self._tell(turn, _UNKNOWN, total)
                written = self._write(memoryview(line)[entered:])
                entered += written or 0
                with contextlib.suppress(OSError):  # what stands there then claims less, and nothing false
                    self._tell(turn, entered, total)
                if written is None:
                    raise StdinClosed("stdin has no reader, or was closed")
                if entered < total:
                    await self._writable()
        finally:
            self._cut = 0 < entered < total

    def _write(self, part: memoryview) -> int | None:
        """Return how many bytes entered, or None where none ever will."""
        try:
            return os.write(self._fd, part) if self._fd >= 0 else None
        except BlockingIOError:
            return 0
        except BrokenPipeError:
            return None

    def _tell(self, turn: int, entered: int, total: int) -> None:
        if self._fd >= 0:
            os.pwrite(self._record, f"{turn:>19} {entered:>10} {total:>10}\n".encode(), 0)

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        self._waiting = waiting = loop.create_future()
        loop.add_writer(self._fd, _settle, waiting)
        try:
            await waiting
        finally:
            self._waiting = None
            if self._fd >= 0:
                loop.remove_writer(self._fd)

    def close(self) -> None:
        """Close our end, once or more often; a line that still waits raises `StdinClosed`."""
        if self._fd < 0:
            return
        if self._waiting is not None:
            self._waiting.get_loop().remove_writer(self._fd)
            _settle(self._waiting)
        os.close(self._fd)
        os.close(self._record)
        self._fd = -1


def progress(directory: Path) -> Progress | None:
    """Return the last record; None where no line was ever begun.

    Raises:
        ValueError: the record makes no sense.
    """
    try:
        fd = os.open(directory / _SENT, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as file:
        said = file.read(_RECORD_LIMIT)
    if not said:
        return None
    if (parts := _RECORD.fullmatch(said)) is None:
        raise ValueError("the record of what entered stdin makes no sense")
    return Progress(int(parts[1]), int(parts[2]), int(parts[3]))


def entered(directory: Path, turn: int) -> Entered:
    """Return whether a turn's line has entered, as far as can be told: after a crash, or after a write that failed.

    Args:
        directory: the session's own.
        turn: number of a line that was to be written.
    """
    try:
        last = progress(directory)
    except (OSError, ValueError):
        return Entered.UNCERTAIN
    if last is None or last.turn < turn or last[:2] == (turn, 0):
        return Entered.NEVER
    return Entered.WHOLE if last.turn == turn and last.entered == last.total else Entered.UNCERTAIN


def _make_room(fd: int, length: int) -> None:
    """Let a line enter at once where the kernel allows it: there is hardly a moment then that leaves it uncertain."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):
        pending = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0]
        wanted = min(PIPE_LIMIT, 2 * pending + length + _PAGE)  # a line begins a page unless it ends on it as well
        if wanted > fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, wanted)


def _settle(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
