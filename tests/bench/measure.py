"""What the parts of the benchmark share: a daemon in a process of its own, load, samples, rows of the table."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import uvloop

from tests.bench.prepare import Prepared
from tests.support.http import Answer, load, request, spread

REPOSITORY = Path(__file__).resolve().parents[2]
CONNECTIONS = 16
UNLIMITED = {
    "DAEMON_SERVER_PORT": "0",
    "DAEMON_SERVER_GLOBAL_RPM": "0",
    "DAEMON_SERVER_SESSION_RPM": "0",
    "DAEMON_SECURITY_MASTER_LOCKOUT_ATTEMPTS": "1000",
    "DAEMON_SECURITY_MAX_SESSIONS_PER_AGENT": "1000",
    "PYTHONPATH": str(REPOSITORY),
}


class Sample(NamedTuple):
    """One measurement of one route."""

    per_second: float
    cpu_us: float
    p99_ms: float


class Row(NamedTuple):
    """One line of the table."""

    what: str
    measured: str
    wanted: str
    holds: bool


class Server:
    """A daemon in a process of its own.

    Args:
        root: its home.
        settings: further variables.
    """

    def __init__(self, root: Path, **settings: str) -> None:
        env = {key: value for key, value in os.environ.items() if not key.startswith("DAEMON_")}
        env |= UNLIMITED | settings
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.server", str(root)],
            env=env, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.stats = psutil.Process(self.process.pid)

    def cpu(self) -> float:
        """Return the processor seconds used so far."""
        used = self.stats.cpu_times()
        return used.user + used.system

    def measure(self, requests: Sequence[bytes], wanted: int = 200) -> Sample:
        """Send requests over 16 connections and return what they cost."""
        before, started = self.cpu(), time.perf_counter()
        answers = [one for batch in send(self.port, spread(requests, CONNECTIONS)) for one in batch]
        elapsed, used = time.perf_counter() - started, self.cpu() - before
        assert {answer.status for answer in answers} == {wanted}, {answer.status for answer in answers}
        assert len(answers) == len(requests)
        times = sorted(answer.seconds for answer in answers)
        return Sample(len(answers) / elapsed, used / len(answers) * 1e6, times[int(len(times) * 0.99)] * 1000)

    def stop(self) -> None:
        """Stop in good order."""
        self.process.communicate("\n", timeout=60)


def send(port: int, batches: Sequence[Sequence[bytes]]) -> list[list[Answer]]:
    """Send batches from this process."""
    return uvloop.run(load(port, batches, keep_bodies=False))


@contextmanager
def serving(root: Path, **settings: str) -> Iterator[Server]:
    """Run a server on a home."""
    server = Server(root, **settings)
    try:
        yield server
    finally:
        server.stop()


def bearer(token: str) -> str:
    return f"Bearer {token}"


def check_requests(made: Prepared, count: int, sessions: int = CONNECTIONS) -> list[bytes]:
    some = [request("GET", "/v1/session", Authorization=bearer(token)) for _, token in made.sessions[-sessions:]]
    return [some[number % len(some)] for number in range(count)]


def renew_requests(made: Prepared, start: int, count: int) -> list[bytes]:
    chosen = made.sessions[start : start + count]
    return [request("PUT", f"/v1/sessions/{one}/renew", Authorization=bearer(token)) for one, token in chosen]


def medians(samples: list[Sample]) -> Sample:
    return Sample(*(statistics.median(column) for column in zip(*samples, strict=True)))


def ratio(row: str, value: float, limit: float, *, least: bool, unit: str = "×") -> Row:
    holds = value >= limit if least else value <= limit
    return Row(row, f"{value:.2f}{unit}", f"{'≥' if least else '≤'} {limit:g}{unit}", holds)
