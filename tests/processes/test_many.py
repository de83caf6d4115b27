"""Many sessions at once: every one of them answers for itself, and costs little."""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from daemon.home import Home
from tests.processes.conftest import MANY
from tests.support.daemon_process import PASSWORD, DaemonProcess, untraced, wait_for
from tests.support.live import LiveDaemon
from tests.support.supervised import BEGIN, Desk

COUNT = 100
ANSWERS = 'while read -r line; do echo "got $line"; done'


class Remote:
    """A daemon in a process of its own, as a `Desk` needs it.

    Args:
        process: the daemon.
    """

    def __init__(self, process: DaemonProcess) -> None:
        self.pid = process.process.pid
        self.home = Home.resolve(process.home, {})
        self.owner = httpx.Client(
            base_url=process.url,
            headers={"X-Master-Password": PASSWORD},
            timeout=60,
            trust_env=False,
            verify=False,
            limits=httpx.Limits(max_connections=20),
        )

    def new_agent(self) -> str:
        """Register an agent and return its id."""
        return LiveDaemon.new_agent(self)  # type: ignore[arg-type]

    def events(self, **filters: str) -> list[dict[str, Any]]:
        """Return all events that match."""
        return LiveDaemon.events(self, **filters)  # type: ignore[arg-type]

    def rss(self) -> int:
        """Return the daemon's resident memory, in bytes."""
        found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        assert found
        return int(found[1]) << 10


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    """A daemon in a process of its own."""
    settings = {**MANY, "DAEMON_PROCESSES_WORKSPACE_ROOTS": f'["{tmp_path}"]'}
    process = DaemonProcess(tmp_path / "home", **dict.fromkeys(os.environ.keys() - untraced().keys()), **settings)
    yield Remote(process)
    process.stop()


def test_a_hundred_sessions_at_once_all_take_a_turn_and_all_end(
    remote: Remote, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    desk, agent = Desk(remote, tmp_path), remote.new_agent()  # type: ignore[arg-type]
    desk.sh(ANSWERS, quietAfter=50).turn("warm up")
    before = remote.rss()
    with ThreadPoolExecutor(8) as several:
        made = list(
            several.map(lambda _: desk.make("sh", "-c", ANSWERS, agent=agent, process={"quietAfter": 50}), range(COUNT))
        )
        for number, session in enumerate(made):
            session.wait("READY").send(f"message {number}")
        list(several.map(lambda one: wait_for(lambda: one.process["turns"]), made))
        after = remote.rss()
        assert len(remote.owner.get("/v1/owner/processes").json()) == COUNT + 1
        assert [one.output() for one in made] == [f"got message {number}\n" for number in range(COUNT)]
        list(several.map(lambda one: one.revoke(), made))
    for session in made:
        assert session.wait("CLOSED").story() == [
            *BEGIN,
            "started",
            "ACTIVE>IDLE 1 done",
            "revoked manual_revoke",
            "closed revoked exit 0",
        ]
    each = (after - before) // COUNT
    with capsys.disabled():
        print(f"\nthe daemon takes {each >> 10} KiB for each of {COUNT} processes, {before >> 20} MiB without them")
    assert each < 1 << 20
    desk.close()


def test_turns_of_two_sessions_at_once_do_not_get_in_each_other_s_way(desk: Desk) -> None:
    first, second = desk.claude(), desk.claude()
    with ThreadPoolExecutor(2) as several:
        for number in range(10):
            sent = list(several.map(lambda one: one[0].send(one[1]), ((first, f"a{number}"), (second, f"b{number}"))))
            assert sent == [number + 1] * 2
            list(several.map(lambda one: one.wait("IDLE"), (first, second)))
    for session, letter in ((first, "a"), (second, "b")):
        assert session.notes("got") == [f"{letter}{number}" for number in range(10)]
        assert re.findall(r'"result": "echo: (\w+)"', session.output()) == session.notes("got")
        assert session.process["usage"]["inputTokens"] == 100
