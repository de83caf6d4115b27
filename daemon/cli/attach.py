"""`daemon session attach`: talk to a session's process, line by line."""

import contextlib
import os
import sys
import threading
from collections import deque
from collections.abc import Iterator

import rich_click as click

from daemon.cli import base
from daemon.cli.failure import FAILED, OK, Failure
from daemon.cli.lookup import session_id
from daemon.cli.output import note
from daemon.cli.process_output import Line
from daemon.cli.session_view import ending, session_argument
from daemon.cli.speaker import Speaker, aside
from daemon.cli.watching import Ended, Event, Item, Typed, Watch

_AHEAD = 16
"""Lines that are read before they are sent: a pipe may bring any number of them."""


@click.command(cls=base.Command)
@session_argument
@click.option("--json", "as_json", is_flag=True, help="Print the lines of the process as they are.")
def attach(session_ref: str, as_json: bool) -> int:
    """Print what the process of a SESSION says from now on, and send it each line that is typed.

    Ctrl-C or Ctrl-D detaches, and ends nothing. Through a pipe, the end of the input detaches once everything that was
    sent is answered.
    """
    watch = Watch(session_id(session_ref))
    if watch.state == "CLOSED":
        raise Failure("The session is over", hint=f"what it wrote: daemon session output {watch.id}")
    try:
        return _Attached(watch, Speaker(watch.command, raw=as_json)).run()
    except KeyboardInterrupt:
        return _detached(watch)


def _detached(watch: Watch) -> int:
    note(f"detached; the session goes on: daemon session attach {watch.id}")
    return OK


class _Attached:
    """Somebody, or a pipe, at a session.

    Args:
        watch: the session.
        speaker: prints what it says.
    """

    def __init__(self, watch: Watch, speaker: Speaker) -> None:
        self._watch = watch
        self._speaker = speaker
        self._is_person = sys.stdin is not None and sys.stdin.isatty()
        self._waiting: deque[str] = deque()
        self._room = threading.Semaphore(_AHEAD)
        self._sent: set[int] = set()
        self._refused = 0
        self._is_closed = False
        self._no_more = False

    def run(self) -> int:
        """Go on until the session is over, or somebody leaves."""
        watch = self._watch
        aside(f"attached to {watch.id}, {watch.state}; Ctrl-C or Ctrl-D detaches, and ends nothing")
        watch.begin()
        watch.add("input", self._typed())
        while not self._leaves():
            item = watch.next()
            if item == Ended("output"):
                return self._over()
            self._take(item)
        if not self._is_person:
            for item in watch.rest():
                self._take(item)
            watch.check()
        _detached(watch)
        return FAILED if self._refused else OK

    def _typed(self) -> Iterator[Typed]:
        """Yield what is typed, line by line; the file object is left alone, for its lock would outlive the program."""
        held = b""
        with contextlib.suppress(OSError):
            while chunk := os.read(0, 65_536):
                *lines, held = (held + chunk).split(b"\n")
                for line in lines:
                    yield self._one(line)
        if held:
            yield self._one(held)

    def _one(self, line: bytes) -> Typed:
        self._room.acquire()
        return Typed(line.removesuffix(b"\r").decode(errors="replace"))

    def _leaves(self) -> bool:
        if not self._no_more:
            return False
        return self._is_person or self._is_answered()

    def _is_answered(self) -> bool:
        """Return whether everything is sent, and every turn over, or never to be."""
        turns = self._watch.turns
        return turns.failed is not None or (not self._waiting and self._sent <= turns.outcomes.keys())

    def _take(self, item: Item) -> None:
        if isinstance(item, Line):
            self._speaker.say(item)
        elif isinstance(item, Event):
            self._is_closed = self._is_closed or item.type == "SESSION_CLOSED"
            if state := item.state():
                aside(state)
            self._send()
        elif isinstance(item, Typed):
            if item.text.strip():
                self._waiting.append(item.text)
                self._send()
            else:
                self._room.release()
        elif item == Ended("input"):
            self._no_more = True

    def _send(self) -> None:
        """Send what waits; where as much waits in the session as may, the rest stays until a turn is over."""
        while self._waiting:
            try:
                self._sent.add(self._watch.send(self._waiting[0], queued=True))
            except Failure as failure:
                if failure.refusal == "SESSION_BUSY":
                    return
                self._refused += 1
                click.echo(f"error: not sent: {failure}", err=True)
            self._waiting.popleft()
            self._room.release()

    def _over(self) -> int:
        process = self._watch.show().process
        if not self._is_closed and process is not None:
            aside(f"CLOSED, {ending(process.reason, process.exit_code, process.signal)}")
        note("the session is over")
        return FAILED if self._refused else OK
