"""`daemon logs`: the structured log across rotation, whether the daemon runs or not."""

import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec
import rich_click as click

from daemon.cli import base
from daemon.cli.candidates import one_of, sessions
from daemon.log_events import EVENTS, for_people, log_files

_POLL = 0.2
_LEVELS = ("debug", "info", "warning", "error")


class _Line(msgspec.Struct, rename="camel"):
    level: str = "info"
    event: str = ""
    session_id: str | None = None


class _Filter(msgspec.Struct, frozen=True):
    least: int
    event: str | None
    session: str | None

    def admits(self, line: bytes) -> bool:
        try:
            read = msgspec.json.decode(line, type=_Line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return False
        rank = _LEVELS.index(read.level) if read.level in _LEVELS else len(_LEVELS)
        named = self.event is None or read.event == self.event or read.event.startswith(f"{self.event}.")
        return rank >= self.least and named and self.session in {None, read.session_id}


@click.command(cls=base.Command)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is logged from now on.")
@click.option("-n", "--lines", type=click.IntRange(0), default=100, show_default=True, help="How many lines at most.")
@click.option("--level", type=click.Choice(_LEVELS), default="debug", help="Least level.")
@click.option(
    "--event",
    shell_complete=one_of(lambda: EVENTS),
    help="Only this event (session.renewed), or all of a noun (session).",
)
@click.option("--session", "session_id", shell_complete=sessions, help="Only this session's lines.")
@click.option("--json", "as_json", is_flag=True, help="Print the lines as they stand in the file.")
def logs(*, follow: bool, lines: int, level: str, event: str | None, session_id: str | None, as_json: bool) -> None:
    """Show the structured log."""
    home = base.home()
    file = home.log_file(base.configuration(home).config.log.file)
    wanted = _Filter(_LEVELS.index(level), event, session_id)
    current = file.open("rb") if file.exists() else None
    kept: deque[bytes] = deque(maxlen=lines)
    for path in reversed(log_files(file)):
        if path != file:
            kept.extend(line for line in path.read_bytes().splitlines() if wanted.admits(line))
    if current is not None:
        kept.extend(line for line in _complete_lines(current) if wanted.admits(line))
    for line in kept:
        _print(line, as_json)
    if follow:
        for line in _followed(file, current):
            if wanted.admits(line):
                _print(line, as_json)


def _print(line: bytes, as_json: bool) -> None:
    click.echo(line if as_json else for_people(line + b"\n").rstrip("\n"))


def _complete_lines(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines that are whole; the position stays before one that is still being written."""
    while True:
        start = file.tell()
        line = file.readline()
        if not line.endswith(b"\n"):
            file.seek(start)
            return
        yield line.rstrip(b"\n")


def _followed(path: Path, file: IO[bytes] | None) -> Iterator[bytes]:
    """Yield what is appended, through rotation: a rotated file is read to its end before the next one is opened."""
    while True:
        if file is not None:
            yield from _complete_lines(file)
        fresh = _replacement(path, file)
        if fresh is not None:
            if file is not None:
                yield from _complete_lines(file)
                file.close()
            file = fresh
            continue
        time.sleep(_POLL)


def _replacement(path: Path, file: IO[bytes] | None) -> IO[bytes] | None:
    """Return the file that stands under the path now, if it is another one than `file`."""
    try:
        found = path.open("rb")
    except FileNotFoundError:
        return None
    if file is not None and os.path.sameopenfile(found.fileno(), file.fileno()):
        found.close()
        return None
    return found
