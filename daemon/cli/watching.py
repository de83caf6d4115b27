"""Watching one supervised session live: its output and its events at once, and which of its turns are over."""

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from daemon.cli.client import Answer, Client
from daemon.cli.credentials import Owner
from daemon.cli.failure import Failure, Passing
from daemon.cli.following import EVENTS, Frame, Stream, newest_event
from daemon.cli.output import one_line
from daemon.cli.process_output import Line, Lines, Source
from daemon.cli.session_view import ending
from daemon.domain.process_views import SentMessage
from daemon.domain.views import SessionDetail

_WAITING = 1_000
"""Items that are held for who does not take them: a process may write faster than a terminal shows it."""
_ENDINGS = {
    "SESSION_REVOKED": "revoked",
    "SESSION_KILLED": "killed",
    "SESSION_EXPIRED": "expired",
    "SESSION_RENEWAL_REJECTED": "renewal rejected",
}


class Event(msgspec.Struct, frozen=True, rename="camel"):
    """What the command line reads of an event."""

    type: str
    session_id: str | None
    details: dict[str, Any]

    def state(self) -> str | None:
        """Return what the session has become with it, and how, in one line; None: it is no step of its life."""
        told = self.details.get
        match self.type:
            case "SESSION_STATE_CHANGED":
                turn = f"turn {told('turn')}" if told("turn") is not None else None
                return _words(told("to"), turn, told("outcome"))
            case "SESSION_STARTED":
                return "ACTIVE, turn 1"
            case "SESSION_SUSPENDED":
                return _words(f"SUSPENDED by {told('by')}", told("reason") if told("reason") != told("by") else None)
            case "SESSION_RESUMED":
                return _words("READY", told("reason"))
            case "SESSION_ERROR":
                again = "to be started again" if told("restartAt") is not None else None
                return _words("ERROR", ending(told("reason"), told("exitCode"), told("signal")), again)
            case "SESSION_CLOSED":
                return _words("CLOSED", ending(told("reason"), told("exitCode"), told("signal")))
            case "BUDGET_WARNING":
                return f"budget: {told('used'):g} of {told('limit'):g} ({told('budget')}) used"
        return f"CLOSING, {_ENDINGS[self.type]}" if self.type in _ENDINGS else None


def _words(*words: str | None) -> str:
    return one_line(", ".join(word for word in words if word))


class _Events(Stream[Event]):
    """The events of one session."""

    def __init__(self, whose: str, position: int, owner: Owner) -> None:
        super().__init__(EVENTS, position, owner)
        self._whose = whose

    def read(self, client: Client, frames: list[Frame]) -> Iterator[Event]:
        """Yield the session's events."""
        for frame in frames:
            self.position = frame.id
            if frame.data is not None:
                event = msgspec.json.decode(frame.data, type=Event)
                if event.session_id == self._whose:
                    yield event


class Turns:
    """What becomes of turns, as a session's events tell it."""

    def __init__(self) -> None:
        self.outcomes: dict[int, str] = {}
        """Of those that are over, by number."""
        self.failed: str | None = None
        """How the process ended, where it failed and is not started again."""
        self._running: int | None = None

    def take(self, event: Event) -> None:
        """Learn from an event."""
        told = event.details.get
        match event.type:
            case "SESSION_STARTED":  # the first turn of all
                self._running, self.failed = 1, None
            case "SESSION_STATE_CHANGED" if told("to") == "ACTIVE":
                self._running, self.failed = told("turn"), None
            case "SESSION_STATE_CHANGED" if told("from") == "ACTIVE" and told("turn") is not None:
                self._over(told("turn", 0), told("outcome") or "unknown")
            case "SESSION_ERROR":
                self.lose()
                if told("restartAt") is None:
                    self.failed = ending(told("reason"), told("exitCode"), told("signal"))

    def lose(self) -> None:
        """Note that the running turn is over, and nobody tells how."""
        if self._running is not None:
            self._over(self._running, "unknown")

    def _over(self, turn: int, outcome: str) -> None:
        self.outcomes[turn], self._running = outcome, None


class Typed(msgspec.Struct, frozen=True):
    """A message that somebody has typed."""

    text: str


class Ended(msgspec.Struct, frozen=True):
    """A source has no more; which."""

    source: str


class Skipped(msgspec.Struct, frozen=True):
    """The output before this offset is not kept any more: none of it will come."""

    offset: int


Item = Line | Event | Typed | Ended | Skipped


def post(client: Client, whose: str, content: str, *, queued: bool) -> Answer:
    """Send a message to a session's process; raises as `Client.call`."""
    return client.call("POST", f"/v1/sessions/{whose}/messages", {"content": content, "queue": queued})


class Watch:
    """One session from now on: what it writes, what becomes of it, and whatever else is added.

    Args:
        whose: the session's id.

    Raises:
        Failure: no daemon answers, the API refuses, or the session has no process.
    """

    def __init__(self, whose: str) -> None:
        self.owner = Owner()
        self.client = Client(owner=self.owner)
        self.id = whose
        shown = self.show()
        if shown.process is None:
            raise Failure("The session has no process", hint="make another one: daemon session create --process …")
        self.command = shown.process.command
        self.state = shown.state
        # Nobody may be asked for a password any more: several threads would ask, and somebody may be typing.
        self.owner.may_ask = False
        self.turns = Turns()
        self._source = Source(whose)
        self._lines = Lines(self._source, self._source.end_of_lines(self.client), self.owner)
        self._events = _Events(whose, newest_event(self.client), self.owner)
        self._read = self._lines.position or 0
        self._items: queue.Queue[Item | BaseException] = queue.Queue(_WAITING)
        self._lines.skipped = lambda offset: self._items.put(Skipped(offset))

    def show(self) -> SessionDetail:
        """Return the session as it is now."""
        return self.client.call("GET", f"/v1/sessions/{self.id}").read(SessionDetail)

    def send(self, content: str, *, queued: bool) -> int:
        """Send a message and return the number of its turn."""
        return post(self.client, self.id, content, queued=queued).read(SentMessage).turn

    def begin(self) -> None:
        """Begin to watch."""
        self.add("output", self._lines)
        self.add("events", self._events)

    def add(self, name: str, items: Iterable[Item]) -> None:
        """Read a source in a thread of its own, which ends with the program."""
        threading.Thread(target=self._pump, args=(name, items), name=name, daemon=True).start()

    def _pump(self, name: str, items: Iterable[Item]) -> None:
        try:
            for item in items:
                self._items.put(item)
            self._items.put(Ended(name))
        except BaseException as error:  # noqa: BLE001 - whatever it is, who waits must hear of it
            self._items.put(error)

    def next(self) -> Item:
        """Wait for something and return it.

        Raises:
            Failure: a source has failed for good.
        """
        item = self._items.get()
        if isinstance(item, BaseException):
            raise item
        if isinstance(item, Line | Skipped):
            self._read = item.offset
        elif isinstance(item, Event):
            self.turns.take(item)
            if item.type == "SESSION_RESUMED":
                self._look_again()
        return item

    def _look_again(self) -> None:
        """Note where no turn goes on: one that was over while the session was suspended has no event of its own."""
        with contextlib.suppress(Passing):
            if self.show().state == "READY":
                self.turns.lose()

    def check(self) -> None:
        """Say so where the process has failed, and is not started again.

        Raises:
            Failure: it has.
        """
        if self.turns.failed is not None:
            hint = f"let it begin again: daemon session resume {self.id}"
            raise Failure(f"The process has failed: {self.turns.failed}", hint=hint)

    def rest(self) -> Iterator[Item]:
        """Yield what comes until all is read that was written up to now."""
        end = self._source.end_of_lines(self.client, self._read)
        while self._read < end:
            item = self.next()
            yield item
            if item == Ended("output"):
                return
