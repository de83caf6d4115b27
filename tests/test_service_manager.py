"""What systemd is told of its service: by a real daemon, on a real socket."""

import contextlib
import os
import signal
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from daemon.service_manager import CLOSING_SECONDS, ServiceManager
from tests.support.daemon_process import PASSWORD, DaemonProcess, wait_for
from tests.support.notified import NotifySocket, notify_socket

PING = 0.15
"""Seconds between two signs of life, half of what the daemon is told."""


class Watched(DaemonProcess):
    """A daemon that is watched, and where it tells how it is."""

    def __init__(self, home: Path, manager: NotifySocket) -> None:
        self.manager = manager
        super().__init__(home, NOTIFY_SOCKET=manager.address, WATCHDOG_USEC=str(round(PING * 2e6)))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    place = tmp_path_factory.mktemp("watched")
    with notify_socket(place / "notify") as manager:
        started = Watched(place / "home", manager)
        yield started
        assert started.stop() == 0


def test_the_manager_is_told_of_each_step_with_its_limit_and_then_that_the_daemon_serves(watched: Watched) -> None:
    *steps, ready = watched.manager.until("READY")
    assert steps[0] == {"STATUS": "Starting: migrate the database", "EXTEND_TIMEOUT_USEC": "605000000"}
    assert {"STATUS": "Starting: recover", "EXTEND_TIMEOUT_USEC": "35000000"} in steps
    assert ready == {"READY": "1", "STATUS": f"Serving at {watched.url}"}


def test_signs_of_life_come_twice_in_the_time_that_the_manager_gives(watched: Watched) -> None:
    watched.manager.until("WATCHDOG")
    watched.manager.forget()
    began = time.monotonic()
    for _ in range(5):
        watched.manager.until("WATCHDOG", PING * 2 + 5)
    assert time.monotonic() - began > PING * 3


def test_no_sign_of_life_comes_while_the_daemon_does_not_run(watched: Watched) -> None:
    watched.process.send_signal(signal.SIGSTOP)
    try:
        watched.manager.forget()
        assert watched.manager.heard(PING * 5) is None
    finally:
        watched.process.send_signal(signal.SIGCONT)
    watched.manager.until("WATCHDOG")


def test_no_sign_of_life_comes_while_the_writer_hangs_though_the_event_loop_turns(watched: Watched) -> None:
    def ask_for_a_change() -> None:
        httpx.post(f"{watched.url}/v1/agents", json={"name": "a"}, headers={"X-Master-Password": PASSWORD}, timeout=20)

    register = threading.Thread(target=ask_for_a_change)
    with contextlib.closing(sqlite3.connect(watched.home / "daemon.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        register.start()
        wait_for(lambda: watched.manager.heard(PING * 4) is None)
        assert httpx.get(f"{watched.url}/health").status_code == 200
        assert watched.manager.heard(PING * 2) is None
        other.execute("ROLLBACK")
    watched.manager.until("WATCHDOG")
    register.join(20)


def test_a_reload_is_told_with_the_time_of_its_beginning_and_its_end(watched: Watched) -> None:
    watched.manager.forget()
    before = time.monotonic_ns() // 1000
    watched.process.send_signal(signal.SIGHUP)
    begun = watched.manager.until("RELOADING")[-1]
    assert before <= int(begun["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert watched.manager.until("READY")[-1]["STATUS"] == f"Serving at {watched.url}"


def test_a_reload_of_an_invalid_configuration_ends_too_and_says_so(watched: Watched) -> None:
    file = watched.home / "config.toml"
    valid = file.read_text()
    file.write_text("[server]\nprot = 1\n")
    watched.process.send_signal(signal.SIGHUP)
    watched.manager.until("RELOADING")
    assert "configuration is invalid" in watched.manager.until("READY")[-1]["STATUS"]
    file.write_text(valid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract sockets")
def test_a_stop_is_told_at_its_beginning_with_the_time_it_may_take(tmp_path: Path) -> None:
    with notify_socket(f"@daemon-test-{os.getpid()}") as manager:
        started = DaemonProcess(tmp_path / "home", NOTIFY_SOCKET=manager.address, DAEMON_SERVER_SHUTDOWN_TIMEOUT="7")
        assert all("WATCHDOG" not in message for message in manager.until("READY"))
        assert started.stop() == 0
        assert manager.until("STOPPING") == [
            {"STOPPING": "1", "STATUS": "Stopping", "EXTEND_TIMEOUT_USEC": f"{(7 + CLOSING_SECONDS) * 1_000_000}"}
        ]


def test_what_is_meant_for_the_daemon_is_taken_out_of_the_environment() -> None:
    environ = {
        "NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid()),
        "XDG_RUNTIME_DIR": "/run/user/1",
    }  # fmt: skip
    manager = ServiceManager.of(environ)
    assert (manager.is_there, manager.watchdog_seconds) == (True, 3.0)
    assert environ == {"XDG_RUNTIME_DIR": "/run/user/1"}


def test_the_watchdog_is_for_the_process_that_it_names() -> None:
    for pid, seconds in (("", 2.0), (str(os.getpid()), 2.0), (str(os.getppid()), None), ("x", None)):
        environ = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": pid}
        assert ServiceManager.of(environ).watchdog_seconds == seconds


@pytest.mark.parametrize("microseconds", ["", "0", "-5", "soon", "1e6"])
def test_a_watchdog_that_has_no_time_is_none(microseconds: str) -> None:
    assert ServiceManager.of({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": microseconds}).watchdog_seconds is None


@pytest.mark.parametrize("address", ["", "relative/path", "vsock:2:1234", "/nowhere/at/all", "@nobody-listens-here"])
def test_where_nobody_listens_nothing_happens(address: str) -> None:
    manager = ServiceManager.of({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000"})
    manager.alive()
    manager.reloading()
    manager.ready("fine")


def test_a_manager_that_takes_nothing_in_holds_nobody_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "notify"))
        manager = ServiceManager(str(tmp_path / "notify"))
        longest = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) if sys.platform == "linux" else 100
        for _ in range(longest + 3):
            manager.alive()
        began = time.monotonic()
        manager.alive()
        assert time.monotonic() - began < 5
        assert deaf.recv(100) == b"WATCHDOG=1"
