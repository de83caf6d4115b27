"""A real daemon in a thread: real server on port 0, real database, a clock that the test moves."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import uvloop

from daemon import config
from daemon.domain.clock import DomainClock
from daemon.home import Home
from daemon.running import Daemon
from daemon.supervising import Surroundings
from daemon.supervision.house import Grace
from daemon.web.open_stream import StreamLimits
from tests.support import engines
from tests.support.homes import prepare

PASSWORD = "correct horse battery staple"
CHEAP = {
    "DAEMON_SECURITY_ARGON2_MEMORY_KIB": "19456",
    "DAEMON_SECURITY_ARGON2_TIME": "1",
    "DAEMON_SERVER_PORT": "0",
}
START = 1_800_000_000
QUICK = Grace(end_of_input=0.4, terminate=0.4, processor=1.5)
"""Grace for processes that do not end by themselves: most tests wait for it."""


class FakeTime:
    """Wall and monotonic time that stand still until they are moved."""

    def __init__(self, wall: int = START) -> None:
        self.wall = float(wall)
        self.mono = 1000.0

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.wall += seconds
        self.mono += seconds

    def step(self, seconds: float) -> None:
        """Set the wall clock forward or, with a negative number, back."""
        self.wall += seconds


class MovedClock(DomainClock):
    """A domain clock that the test moves: no server corrects it."""

    def adjust(self, offset: float) -> None:
        """Leave it as it is."""


class LiveDaemon:
    """A daemon that serves from a thread until `stop`.

    Args:
        root: its home.
        time: moved by the test.
        streams: what live streams may take.
        env: further `DAEMON_<SECTION>_<KEY>` settings.
    """

    def __init__(
        self, root: Path, time: FakeTime | None = None, streams: StreamLimits | None = None, **env: str
    ) -> None:
        self.root = root
        self.time = time or FakeTime()
        self.home = Home.resolve(root, {})
        self._streams = streams
        self._env = {**CHEAP, **env}
        if "DAEMON_DATABASE_URL" not in self._env:
            prepare(root)
        self._thread: threading.Thread | None = None
        self.start()

    def start(self) -> None:
        """Start, and return when requests are answered."""
        ready, failed = threading.Event(), list[BaseException]()

        async def main() -> None:
            clock = MovedClock(lambda: self.time.wall, lambda: self.time.mono)
            loaded = config.load(self.root, self._env, {})
            self.loop = asyncio.get_running_loop()
            surroundings = Surroundings(stream_limits=self._streams or StreamLimits(), grace=QUICK)
            self.daemon = Daemon(self.home, loaded, password=PASSWORD, clock=clock, surroundings=surroundings)
            try:
                await self.daemon.start()
            except BaseException as error:
                failed.append(error)
                raise
            finally:
                ready.set()
            await self.daemon.run_until_stopped()

        def target() -> None:
            try:
                uvloop.run(main())
            except BaseException as error:  # noqa: BLE001 (the test's thread raises it)
                if error not in failed:
                    failed.append(error)
                ready.set()

        self._failed = failed
        self._thread = threading.Thread(target=target, name="daemon")
        self._thread.start()
        assert ready.wait(30), "the daemon did not start"
        if failed:
            self._thread.join()
            self._thread = None
            raise failed[0]
        self.url = self.daemon.url
        self.owner = self.client(**{"X-Master-Password": PASSWORD})
        self.anonymous = self.client()

    def stop(self) -> None:
        """Stop in good order; once is enough."""
        if self._thread is not None:
            self.loop.call_soon_threadsafe(self.daemon.stop_soon, "test")
            self._thread.join(30)
            assert not self._thread.is_alive(), "the daemon did not stop"
            self._thread = None
            assert not self._failed, self._failed

    def restart(self) -> None:
        """Stop, and start again on the same home."""
        self.stop()
        self.start()

    def client(self, **headers: str) -> httpx.Client:
        """Return a client that sends these headers."""
        # Loading the certificates of a TLS context that plain HTTP never uses would take longer than most requests.
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False, verify=False)

    def agent(self, token: str) -> httpx.Client:
        """Return a client that sends this session token."""
        return self.client(Authorization=f"Bearer {token}")

    def call(self, work: Callable[[Daemon], Any]) -> Any:
        """Await what `work` returns on the daemon's own loop, e.g. `lambda d: d.parts.services.admin.mark_idle()`."""
        return asyncio.run_coroutine_threadsafe(work(self.daemon), self.loop).result(30)

    @property
    def where(self) -> dict[str, str]:
        """What a command line needs to find the rows of this home."""
        return {name: value for name, value in self._env.items() if name == "DAEMON_DATABASE_URL"}

    @property
    def database(self) -> Path | str:
        """The file with the rows, or the address on a server."""
        return self._env.get("DAEMON_DATABASE_URL") or self.home.database

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Read or change the rows themselves, past the daemon; `?` stands for values, times are Unix seconds."""
        return engines.ask(self.database, sql, *values)

    def new_agent(self, name: str = "agent") -> str:
        """Register an agent and return its id."""
        return str(self.owner.post("/v1/agents", json={"name": name}).raise_for_status().json()["id"])

    def new_session(self, agent_id: str | None = None, **body: Any) -> dict[str, Any]:
        """Make a session (of a new agent) and return the answer, token included."""
        body["agentId"] = agent_id or self.new_agent()
        made: dict[str, Any] = self.owner.post("/v1/sessions", json=body).raise_for_status().json()
        return made

    def events(self, **filters: str) -> list[dict[str, Any]]:
        """Return all events that match."""
        found: list[dict[str, Any]] = []
        after = 0
        while True:
            page = self.owner.get("/v1/admin/audit", params={**filters, "after": after, "limit": 200}).json()
            found += page
            if len(page) < 200:
                return found
            after = page[-1]["seq"]
