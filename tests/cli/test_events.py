"""`daemon events`: the newest ones, and those to come, across restarts of the daemon."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.daemon_process import PASSWORD, DaemonProcess, environment, wait_for


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    started = DaemonProcess(tmp_path / "home")
    yield started
    if started.process.returncode is None:
        started.kill9()


def new_agents(daemon: DaemonProcess, count: int = 1) -> None:
    with httpx.Client(base_url=daemon.url, headers={"X-Master-Password": PASSWORD}, trust_env=False) as client:
        for number in range(count):
            client.post("/v1/agents", json={"name": f"a{number}"}).raise_for_status()


class Following:
    """`daemon events -f` in a process of its own."""

    def __init__(self, home: Path, *arguments: str, **env: str | None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "daemon", "events", "-f", *arguments],
            env=environment(home, **{"DAEMON_MASTER_PASSWORD": PASSWORD, **env}),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        self.lines: list[str] = []
        self.said = ""
        self._threads = [threading.Thread(target=self._out), threading.Thread(target=self._err)]
        for thread in self._threads:
            thread.start()

    def _out(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def _err(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line

    @property
    def ids(self) -> list[int]:
        return [json.loads(line)["seq"] for line in list(self.lines)]

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> int:
        code = self.process.wait(20)
        for thread in self._threads:
            thread.join()
        return code


def test_without_f_the_newest_fifty_are_printed(daemon: DaemonProcess) -> None:
    new_agents(daemon, 60)
    listed = daemon.cli("audit", "list", "--limit", "1000", "--json").json()
    newest = [json.loads(line) for line in daemon.cli("events", "--json").out.splitlines()]
    assert newest == listed[-50:]
    people = daemon.cli("events").out.splitlines()
    assert len(people) == 50
    assert people[-1].split()[:1] + people[-1].split()[3:4] == [str(listed[-1]["seq"]), "AGENT_CREATED"]
    assert "name=a59" in people[-1]
    assert f"agent={listed[-1]['agentId']}" in people[-1]


def test_after_and_type_choose(daemon: DaemonProcess) -> None:
    new_agents(daemon, 3)
    listed: list[dict[str, Any]] = daemon.cli("audit", "list", "--json").json()

    def seqs(*arguments: str) -> list[int]:
        return [json.loads(line)["seq"] for line in daemon.cli("events", "--json", *arguments).out.splitlines()]

    assert seqs("--after", "2") == [event["seq"] for event in listed if event["seq"] > 2]
    assert seqs("--type", "DAEMON_STARTED") == [event["seq"] for event in listed if event["type"] == "DAEMON_STARTED"]
    assert seqs("--type", "AGENT_CREATED", "--after", str(listed[-2]["seq"])) == [listed[-1]["seq"]]
    assert seqs("--type", "NO_SUCH") == []


def test_following_goes_on_over_a_restart_and_a_kill_without_gap_or_repeat(daemon: DaemonProcess) -> None:
    following = Following(daemon.home, "--json", "--after", "0")
    try:
        new_agents(daemon, 5)
        wait_for(lambda: len(following.ids) >= 5)
        daemon.stop()
        wait_for(lambda: "trying again" in following.said)
        daemon.start()
        new_agents(daemon, 5)
        wait_for(lambda: following.said.count("connected again") == 1)
        daemon.kill9()
        daemon.start()
        new_agents(daemon, 5)
        wait_for(lambda: following.said.count("connected again") == 2)
        head = daemon.cli("audit", "list", "--limit", "1000", "--json").json()[-1]["seq"]
        wait_for(lambda: following.ids[-1] >= head)
    finally:
        code = following.interrupt()
    assert code == 130
    assert following.ids == list(range(1, head + 1))
    assert [line for line in following.said.splitlines() if line and not line.startswith("note: ")] == []
    assert PASSWORD not in following.said


def test_lines_for_people_and_of_one_type_can_be_followed(daemon: DaemonProcess) -> None:
    following = Following(daemon.home, "--type", "OWNER_LOGIN", "--after", "0")
    new_agents(daemon)
    assert daemon.cli("login").code == 0
    wait_for(lambda: following.lines)
    assert following.interrupt() == 130
    assert [line.split()[3] for line in following.lines] == ["OWNER_LOGIN"]


def test_a_ticket_that_a_restart_ended_gives_way_to_the_password_or_to_an_error(daemon: DaemonProcess) -> None:
    ticket = daemon.cli("login").out.partition("wai_own_")[2].split()[0].rstrip(";'\"")
    by_ticket = {"DAEMON_OWNER_TICKET": f"wai_own_{ticket}"}
    both = Following(daemon.home, "--json", "--after", "0", **by_ticket)
    alone = Following(daemon.home, "--json", "--after", "0", DAEMON_MASTER_PASSWORD=None, **by_ticket)
    wait_for(lambda: both.lines and alone.lines)
    daemon.stop()
    daemon.start()
    assert alone.end() == 4
    assert "the owner ticket is over" in alone.said
    assert alone.said.splitlines()[-1].startswith("error: The master password is needed")
    new_agents(daemon)
    wait_for(lambda: json.loads(both.lines[-1])["type"] == "AGENT_CREATED")
    assert both.interrupt() == 130
    assert both.ids == list(range(1, both.ids[-1] + 1))


def test_a_pipe_that_nobody_reads_ends_it_quietly(daemon: DaemonProcess) -> None:
    command = subprocess.Popen(
        [sys.executable, "-m", "daemon", "events", "-f", "--json", "--after", "0"],
        env=environment(daemon.home, DAEMON_MASTER_PASSWORD=PASSWORD),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert command.stdout is not None
    assert command.stderr is not None
    os.read(command.stdout.fileno(), 10)
    command.stdout.close()
    new_agents(daemon)
    assert (command.wait(10), command.stderr.read()) == (0, b"")
    command.stderr.close()


def test_with_no_daemon_the_first_attempt_fails(tmp_path: Path) -> None:
    following = Following(tmp_path / "nobody")
    assert following.end() == 1
    assert following.said.startswith("error: The daemon is not running")
