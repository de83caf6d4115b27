"""Live streams under load: what many readers of every event cost the agents."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.bench.measure import CONNECTIONS, REPOSITORY, Row, Server, check_requests, ratio, serving
from tests.bench.prepare import PASSWORD, Prepared, make_home

SESSIONS = 50
"""Of each agent: its end makes two events for each of them, and one of its own."""
EVERY = 0.09
"""Seconds between the ends of two agents."""


def streams(root: Path, *, rounds: int, seconds: float, readers: int, warm: int) -> list[Row]:
    """Compare the token check while 1,000 events happen a second, without and with readers of all of them."""
    batch = int(seconds / EVERY)
    agents = 2 * rounds * batch + CONNECTIONS
    made = make_home(root, agents, agents * SESSIONS)
    ends = iter(made.agents)
    alike, kept, grown, rates = 0, [], [], []
    with serving(root) as server:
        server.measure(check_requests(made, warm))
        for _ in range(rounds):
            without, _ = _under_events(server, made, [next(ends) for _ in range(batch)], warm)
            before = server.stats.memory_info().rss
            with _readers(server.port, readers) as report:
                loaded, rate = _under_events(server, made, [next(ends) for _ in range(batch)], warm)
                grown.append((server.stats.memory_info().rss - before) / 2**20)
                seen = report()
            print(f"streams: {without:,.0f}/s without, {loaded:,.0f}/s with readers; {seen}", file=sys.stderr)
            kept.append(loaded / without)
            rates.append(rate)
            alike += seen["alike"] if seen["whole"] else 0
    every, flow = readers * rounds, f"{statistics.median(rates):,.0f} events/s"
    return [
        Row(f"streams that saw each of {flow} in order", f"{alike} of {every}", f"{every}", alike == every),
        ratio(f"token check with {readers} streams, of that without", statistics.median(kept), 0.5, least=True),
        ratio(f"resident memory that {readers} streams add", max(grown), 64, least=False, unit=" MiB"),
    ]


def _under_events(server: Server, made: Prepared, agents: Sequence[str], burst: int) -> tuple[float, float]:
    """End agents steadily; return the token checks and the events a second meanwhile."""
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.writers", str(server.port), str(EVERY)],
        cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert writer.stdin is not None
    assert writer.stdout is not None
    reads = check_requests(made, burst)
    writer.stdin.write("\n".join(agents))
    writer.stdin.close()
    assert writer.stdout.readline() == "ready\n"
    first, started, count = _head(server.port), time.perf_counter(), 0
    while writer.poll() is None:
        server.measure(reads)
        count += len(reads)
    elapsed = time.perf_counter() - started
    assert writer.returncode == 0
    return count / elapsed, (_head(server.port) - first) / elapsed


def _head(port: int) -> int:
    """Return the newest event's number: the first words of a stream tell it."""
    url = f"http://127.0.0.1:{port}/v1/owner/events"
    with httpx.stream("GET", url, headers={"X-Master-Password": PASSWORD}, trust_env=False) as answer:
        opening = next(answer.iter_text())
    return int(opening.partition("\nid: ")[2])


@contextmanager
def _readers(port: int, count: int) -> Iterator[Callable[[], dict[str, Any]]]:
    """Open streams in another process; yield what waits for their last event and returns what they saw."""
    readers = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.readers", str(port), str(count), str(_head(port))],
        cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert readers.stdout is not None
    assert readers.stdout.readline() == "ready\n"

    def report() -> dict[str, Any]:
        seen, _ = readers.communicate(f"{_head(port)}\n", timeout=90)
        found: dict[str, Any] = json.loads(seen)
        return found

    try:
        yield report
    finally:
        readers.kill()
        readers.wait()
