"""Two real daemons on one PostgreSQL database."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.support.daemon_process import PASSWORD, DaemonProcess
from tests.support.postgres import ask

UNLIMITED = {"DAEMON_SERVER_GLOBAL_RPM": "0", "DAEMON_SERVER_SESSION_RPM": "0"}


class Site(DaemonProcess):
    """One of them, with what a test asks of it.

    Args:
        home: its home.
        database: address of the database.
        env: further settings.
    """

    def __init__(self, home: Path, database: str, **env: str) -> None:
        super().__init__(home, DAEMON_DATABASE_URL=database, **{**UNLIMITED, **env})
        self.port = int(self.url.rpartition(":")[2])
        self.owner = self.client(**{"X-Master-Password": PASSWORD})

    def client(self, **headers: str) -> httpx.Client:
        """Return a client that sends these headers."""
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False, verify=False)

    def agent(self, token: str) -> httpx.Client:
        """Return a client that sends this session token."""
        return self.client(Authorization=f"Bearer {token}")

    def new_agent(self) -> str:
        """Register an agent and return its id."""
        return str(self.owner.post("/v1/agents", json={"name": "agent"}).raise_for_status().json()["id"])

    def new_session(self, agent_id: str | None = None, **body: Any) -> dict[str, Any]:
        """Make a session, of a new agent unless one is named, and return the answer."""
        asked = {"agentId": agent_id or self.new_agent(), **body}
        made: dict[str, Any] = self.owner.post("/v1/sessions", json=asked).raise_for_status().json()
        return made

    def logged(self, *names: str) -> list[dict[str, Any]]:
        """Return the lines of the log with these events, of all events where none is named."""
        lines = [json.loads(line) for line in (self.home / "logs" / "daemon.log").read_text().splitlines()]
        return [line for line in lines if not names or line["event"] in names]


class Pair:
    """Two daemons, A and B.

    Args:
        root: gets their homes.
        url: of the database.
        url_of_b: the address under which B reaches it.
        env: settings of both.
    """

    def __init__(self, root: Path, url: str, url_of_b: str | None = None, **env: str) -> None:
        self.url = url
        self.a = Site(root / "a", url, **env)
        (root / "b").mkdir(mode=0o700)
        shutil.copy(self.a.home / "seal.key", root / "b" / "seal.key")
        try:
            self.b = Site(root / "b", url_of_b or url, **env)
        except BaseException:
            self.a.kill9()
            raise

    def stop(self) -> None:
        """End both."""
        for site in (self.a, self.b):
            if site.process.poll() is None:
                site.kill9()
            site.owner.close()

    def ask(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Read the database itself."""
        return ask(self.url, sql, *values)


def refused_after(accepted: Callable[[], bool], since: float, seconds: float = 3) -> float:
    """Return how many seconds after `since` the first request that is refused was answered.

    Args:
        accepted: sends a request.
        since: monotonic seconds.
        seconds: within which there must be a refusal.
    """
    while accepted():
        assert time.monotonic() - since < seconds, "it is still accepted"
    return time.monotonic() - since
