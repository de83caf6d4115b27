"""Supervised processes: how fast one starts, how late its lines arrive, what a hundred of them cost."""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from tests.bench.measure import REPOSITORY, Row, Server, check_requests, ratio, serving
from tests.bench.prepare import PASSWORD, Prepared, make_home

EVERY = 0.05
"""Seconds between two lines of a child."""
_TALKER = """
import sys, time
for _ in range(int(sys.argv[1])):
    print(time.monotonic_ns(), flush=True)
    time.sleep(float(sys.argv[2]))
sys.stdin.read()
"""


def processes(
    root: Path, *, starts: int, talkers: int, seconds: float, idle: int, idle_seconds: float, reads: int
) -> list[Row]:
    """Measure on one daemon: idle children first, while nothing else has made its memory grow."""
    made = make_home(root, 1, 100)
    settings = {
        "PATH": f"{_programs(root)}{os.pathsep}{os.environ['PATH']}",
        "DAEMON_PROCESSES_WORKSPACE_ROOTS": json.dumps([str(root)]),
        "DAEMON_PROCESSES_MAX_PROCESSES": "1000",
        "DAEMON_PROCESSES_MAX_PER_AGENT": "1000",
    }
    with serving(root, **settings) as server, _owner(server) as owner:
        desk = _Desk(owner, made.agents[0], str(root))
        desk.end([desk.start(["cat"])])  # what is loaded with the first one is not counted for each
        alone = _share(server, idle_seconds)
        grown, share = _idle(server, desk, idle, idle_seconds)
        begun, bare = _starts(desk, starts)
        late = _latency(server, desk, talkers, seconds)
        factors = {name: _under(server, made, desk, command, reads) for name, command in _BAD.items()}
    return [
        Row("start of a process, p50 (and of a bare one)", f"{begun:.1f} ms ({bare:.1f} ms)",
            f"≤ {1.5 * bare + 20:.1f} ms", begun <= 1.5 * bare + 20),
        ratio(f"line of one of {talkers} processes to its reader, p99", late, 20, least=False, unit=" ms"),
        ratio("resident memory for each process", grown, 300, least=False, unit=" KiB"),
        Row(f"processor time with {idle} idle processes (and with none)", f"{share:.2f} % ({alone:.2f} %)",
            "≤ 2 %", share <= 2),
        *(ratio(f"token check, p99 while a process {how}", factor, 3, least=False) for how, factor in factors.items()),
    ]  # fmt: skip


def _programs(root: Path) -> Path:
    """Return a directory with a `claude` that says, without a pause, what means nothing but must be looked at."""
    directory = root.with_name(f"{root.name}-bin")
    directory.mkdir()
    program = directory / "claude"
    program.write_text('#!/bin/sh\nexec yes \'{"type":"assistant","message":{"content":[{"type":"text"}]}}\'\n')
    program.chmod(0o755)
    return directory


_BAD: dict[str, Any] = {
    "floods its output": "claude",
    "writes lines of 10 MB": ["sh", "-c", "while :; do head -c 10485760 /dev/zero | tr '\\0' x; echo; done"],
    "forks without end": ["sh", "-c", "while :; do sleep 300 & done"],
}


def _under(server: Server, made: Prepared, desk: "_Desk", command: Any, reads: int) -> float:
    """Return the token check's p99 while a process behaves badly, of that without."""
    calm = server.measure(check_requests(made, reads)).p99_ms
    session = desk.ask(command)
    loud = server.measure(check_requests(made, reads)).p99_ms
    desk.end([session])
    return loud / calm


def _owner(server: Server) -> httpx.Client:
    url = f"http://127.0.0.1:{server.port}"
    return httpx.Client(base_url=url, headers={"X-Master-Password": PASSWORD}, trust_env=False, timeout=60)


class _Desk:
    """Starts and ends sessions with a process."""

    def __init__(self, owner: httpx.Client, agent: str, directory: str) -> None:
        self._owner = owner
        self._agent = agent
        self._directory = directory

    def ask(self, command: Any) -> str:
        process = {"command": command, "workingDir": self._directory}
        made = self._owner.post("/v1/sessions", json={"agentId": self._agent, "process": process})
        return str(made.raise_for_status().json()["id"])

    def state(self, session: str) -> Any:
        return self._owner.get(f"/v1/sessions/{session}").json()["state"]

    def wait(self, session: str, state: str) -> None:
        deadline = time.monotonic() + 60
        while self.state(session) != state:
            assert time.monotonic() < deadline
            time.sleep(0.001)  # who asks without a pause takes the processor from whom it waits for

    def start(self, command: list[str]) -> str:
        session = self.ask(command)
        self.wait(session, "READY")
        return session

    def end(self, sessions: list[str]) -> None:
        for session in sessions:
            self._owner.post(f"/v1/sessions/{session}/kill").raise_for_status()


def _starts(desk: _Desk, count: int) -> tuple[float, float]:
    """Return the median milliseconds from the answer to READY, and those of a bare child to its first output."""
    ours, bare = [], []
    for _ in range(count):
        session, began = desk.ask(["cat"]), time.perf_counter()
        desk.wait(session, "READY")
        ours.append(time.perf_counter() - began)
        desk.end([session])
        began = time.perf_counter()
        with subprocess.Popen(
            ["/bin/sh", "-c", "echo; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as one:
            assert one.stdout is not None
            one.stdout.readline()
            bare.append(time.perf_counter() - began)
            one.kill()
    return statistics.median(ours) * 1000, statistics.median(bare) * 1000


def _idle(server: Server, desk: _Desk, count: int, seconds: float) -> tuple[float, float]:
    """Return the KiB of the daemon that each idle process costs, and its share of a processor with all of them."""
    before = server.stats.memory_info().rss
    sessions = [desk.ask(["cat"]) for _ in range(count)]
    for session in sessions:
        desk.wait(session, "READY")
    grown = (server.stats.memory_info().rss - before) / count / 1024
    share = _share(server, seconds)
    desk.end(sessions)
    return grown, share


def _share(server: Server, seconds: float) -> float:
    """Return the share of a processor that the daemon takes while nothing is asked of it, in percent."""
    used = server.cpu()
    time.sleep(seconds)
    return (server.cpu() - used) / seconds * 100


def _latency(server: Server, desk: _Desk, count: int, seconds: float) -> float:
    """Return the 99th percentile of the milliseconds from a line's writing to its reader."""
    lines = max(1, int(seconds / EVERY))
    command = [sys.executable, "-S", "-c", _TALKER, str(lines), str(EVERY)]
    sessions = [desk.ask(command) for _ in range(count)]
    reader = subprocess.run(
        [sys.executable, "-m", "tests.bench.processes", str(server.port), str(lines), *sessions],
        cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    late: list[float] = json.loads(reader.stdout)
    assert len(late) == count * lines
    desk.end(sessions)
    # The first lines wait for a reader that is not there yet.
    fresh = sorted(late)[: int(len(late) * 0.99)]
    return fresh[-1]


async def _read(port: int, session: str, lines: int) -> list[float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    target = f"/v1/sessions/{session}/output"
    writer.write(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Master-Password: {PASSWORD}\r\n\r\n".encode())
    late: list[float] = []
    connected = False
    while len(late) < lines:
        line = await reader.readline()
        now = time.monotonic_ns()
        if line.startswith(b": connected"):
            opened, connected = now, True
        elif line.startswith(b"data: ") and connected:
            written = int(line[6:])
            # What was written before anybody read is not late.
            late.append(max(0, now - max(written, opened)) / 1e6 if written < opened else (now - written) / 1e6)
    writer.close()
    return late


async def _read_all(port: int, lines: int, sessions: list[str]) -> list[float]:
    found = await asyncio.gather(*(_read(port, session, lines) for session in sessions))
    return [one for some in found for one in some]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_read_all(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))))
