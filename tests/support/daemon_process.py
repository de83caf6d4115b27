"""A real daemon in a process of its own, and the real command line against it."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.homes import prepare

PASSWORD = "correct horse battery staple"
REPOSITORY = Path(__file__).resolve().parents[2]
CHEAP = {
    "DAEMON_SECURITY_ARGON2_MEMORY_KIB": "19456",
    "DAEMON_SECURITY_ARGON2_TIME": "1",
    "DAEMON_SERVER_PORT": "0",
}


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Return what was printed as JSON."""
        return json.loads(self.out)


UNTRACED = {"COVERAGE_PROCESS_CONFIG": None, "COVERAGE_PROCESS_START": None}
"""Variables to remove for a process that is killed or timed: what coverage measures of it is lost, or slows it down."""


def untraced() -> dict[str, str]:
    """Return this process's environment for a child that coverage leaves alone."""
    return {name: value for name, value in os.environ.items() if name not in UNTRACED}


def environment(home: Path, **more: str | None) -> dict[str, str]:
    """Return an environment for the daemon: nothing of the caller's own daemon leaks in; None removes a variable."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DAEMON_")}
    made = {**kept, **CHEAP, "DAEMON_HOME": str(home), "PYTHONPATH": str(REPOSITORY), "SHELL": "/bin/sh"}
    return {name: value for name, value in {**made, **more}.items() if value is not None}


def cli(home: Path, *arguments: str, stdin: str | None = None, timeout: float = 60, **env: str | None) -> Ended:
    """Run one command without a terminal and return how it ended; the password is in the environment."""
    done = subprocess.run(
        [sys.executable, "-m", "daemon", *arguments],
        env=environment(home, **{"DAEMON_MASTER_PASSWORD": PASSWORD, **env}),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=timeout,
        start_new_session=True,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def wait_for(fact: Callable[[], Any], seconds: float = 20) -> Any:
    """Return what `fact` returns once that is true; fail after the deadline."""
    deadline = time.monotonic() + seconds
    while not (found := fact()):
        assert time.monotonic() < deadline, "the fact did not come true in time"
        time.sleep(0.02)
    return found


class DaemonProcess:
    """`daemon start` in the foreground, from its ready line on.

    Args:
        home: its home.
        env: further variables; None removes one.
    """

    def __init__(self, home: Path, **env: str | None) -> None:
        self.home = home
        self._env = env
        if "DAEMON_DATABASE_URL" not in env:
            prepare(home)
        self.lines: list[dict[str, Any]] = []
        self.start()

    def start(self) -> None:
        """Start and wait for the ready line."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "daemon", "start"],
            env=environment(self.home, **{"DAEMON_MASTER_PASSWORD": PASSWORD, **self._env}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        started = time.monotonic()
        self.ready = self._await_ready(started + 30)
        self.seconds_to_ready = time.monotonic() - started
        self.url: str = self.ready["url"]

    def _await_ready(self, deadline: float) -> dict[str, Any]:
        assert self.process.stdout is not None
        buffer = b""
        while time.monotonic() < deadline:
            if not select.select([self.process.stdout], [], [], 0.1)[0]:
                continue
            chunk = os.read(self.process.stdout.fileno(), 65_536)
            if not chunk:
                break
            *whole, buffer = (buffer + chunk).split(b"\n")
            self.lines += [json.loads(line) for line in whole]
            for line in self.lines:
                if line["event"] == "daemon.ready" and line["pid"] == self.process.pid:
                    return line
        self.process.kill()
        _, said = self.process.communicate()
        raise AssertionError(f"the daemon was not ready: {said.decode()}")

    def cli(self, *arguments: str, **more: Any) -> Ended:
        """Run a command against this daemon's home."""
        return cli(self.home, *arguments, **more)

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self._reap()

    def kill9(self) -> None:
        """Kill it with SIGKILL and reap it."""
        self.process.kill()
        self._reap()

    def _reap(self) -> int:
        self.process.communicate(timeout=60)
        return self.process.returncode
