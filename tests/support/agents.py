"""Agents that use the Python client against a live daemon, in the daemon's own time."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from daemon.client import AsyncSession, Session
from daemon.client.core import Core
from daemon.client.effects import Credential, Effect, Pause, Send, Steps, Work
from daemon.client.finding import Locate, credential, locator
from daemon.client.standing import Time
from daemon.client.wire import Wire
from tests.support.live import LiveDaemon

T = TypeVar("T")


def token_file(directory: Path, token: str, name: str = "token") -> Path:
    """Write a token as the owner does."""
    path = directory / name
    path.touch(mode=0o600)
    path.write_text(f"{token}\n")
    return path


def in_time_of(live: LiveDaemon) -> Time:
    """Return the daemon's time of day, and this machine's own monotonic time."""
    return Time(now=lambda: live.time.wall)


class Agent(Protocol):
    """A session in threads or in an event loop, used in one way."""

    def do(self, name: str, *arguments: Any, **more: Any) -> Any:
        """Call a method and return its result."""

    @property
    def session(self) -> Session | AsyncSession:
        """What is used."""


class InThreads:
    """Uses a `Session`."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def do(self, name: str, *arguments: Any, **more: Any) -> Any:
        """Call a method and return its result."""
        return getattr(self.session, name)(*arguments, **more)


class InLoop:
    """Uses an `AsyncSession` in an event loop of its own."""

    def __init__(self, session: AsyncSession, loop: asyncio.AbstractEventLoop) -> None:
        self.session = session
        self.loop = loop

    def do(self, name: str, *arguments: Any, **more: Any) -> Any:
        """Await a method and return its result."""

        async def work() -> Any:
            return await getattr(self.session, name)(*arguments, **more)

        return asyncio.run_coroutine_threadsafe(work(), self.loop).result(30)


Open = Callable[..., Any]
"""Returns a context manager that yields an Agent: `open_agent(credential, locate, clock, timeout)`."""


@contextmanager
def in_threads(credential: Credential, locate: Locate, clock: Time, timeout: float) -> Iterator[Agent]:
    """Yield an agent with threads."""
    with Session(credential, locate, clock, timeout) as session:
        yield InThreads(session)


@contextmanager
def in_loop(credential: Credential, locate: Locate, clock: Time, timeout: float) -> Iterator[Agent]:
    """Yield an agent with an event loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def begin() -> AsyncSession:
        return await AsyncSession(credential, locate, clock, timeout).__aenter__()

    session = asyncio.run_coroutine_threadsafe(begin(), loop).result(30)
    try:
        yield InLoop(session, loop)
    finally:
        asyncio.run_coroutine_threadsafe(session.close(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


class Stop(Exception):  # noqa: N818 (what the test does)
    """The test has seen enough."""


class Driven:
    """The core of the client in simulated time: what it waits for passes at once, for the daemon too.

    Args:
        live: the daemon, whose time it moves.
        known: the credential.
        socket: of the way to the daemon; its own when None.

    Attributes:
        pauses: the seconds that the core has waited for, one after the other.
        sent: the requests, as method and target.
        on: called with each effect before it is performed; may raise, or return something in its place.
    """

    def __init__(self, live: LiveDaemon, known: Credential, socket: Path | None = None) -> None:
        time = live.time
        self.core = Core(known, Time(lambda: time.wall, lambda: time.mono), 30.0, lambda: None)
        self._wire = Wire(locator(None, socket, None if socket else live.root, {}))
        self._time = time
        self.pauses: list[float] = []
        self.sent: list[tuple[str, str]] = []
        self.on: Callable[[Effect], Any] = lambda _effect: None

    def run(self, steps: Steps[T]) -> T:
        """Do what the core asks for until it has its result."""
        try:
            effect = next(steps)
            while True:
                try:
                    done = self._perform(effect)
                except Stop:
                    raise
                except Exception as error:  # noqa: BLE001 (the core decides)
                    effect = steps.throw(error)
                else:
                    effect = steps.send(done)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _perform(self, effect: Effect) -> object:
        if (instead := self.on(effect)) is not None:
            return instead
        match effect:
            case Send(method, target):
                self.sent.append((method, target))
                return self._wire.send(effect)
            case Pause(seconds):
                self.pauses.append(seconds)
                return self._time.advance(seconds)
            case Work(do):
                return do()

    def close(self) -> None:
        """End its connections."""
        self._wire.close()


def of_file(path: Path) -> Credential:
    """Return the credential of a token file."""
    return credential(path, None, {})
