"""`python -m tests.bench [--quick] [--readme]`: measure, print a table, write JSON."""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop

from tests.bench.conversations import conversations
from tests.bench.elsewhere import elsewhere
from tests.bench.engines import engines
from tests.bench.measure import (
    CONNECTIONS,
    REPOSITORY,
    UNLIMITED,
    Row,
    Sample,
    Server,
    bearer,
    check_requests,
    medians,
    ratio,
    renew_requests,
    serving,
)
from tests.bench.metrics import metrics
from tests.bench.prepare import PASSWORD, Prepared, make_home
from tests.bench.processes import processes
from tests.bench.single_file import single_file
from tests.bench.streams import streams
from tests.support.http import Answer, load, request, spread


def create_requests(made: Prepared, start: int, count: int) -> list[bytes]:
    agents = made.agents
    bodies = (json.dumps({"agentId": agents[n % len(agents)]}).encode() for n in range(start, start + count))
    return [request("POST", "/v1/sessions", body=body, X_Master_Password=PASSWORD) for body in bodies]


def introspection_requests(made: Prepared, count: int) -> list[bytes]:
    some = [
        request(
            "POST", "/v1/oauth/introspect", body=f"token={token}&token_type_hint=access_token".encode(),
            media="application/x-www-form-urlencoded", Authorization=bearer(made.verifier),
        )
        for _, token in made.sessions[-CONNECTIONS:]
    ]  # fmt: skip
    return [some[number % len(some)] for number in range(count)]


def routes(root: Path, *, rounds: int, reads: int, writes: int, agents: int) -> list[Row]:
    """Compare the token check, introspection, renewal and creation with the bare route, interleaved."""
    made = make_home(root, agents=agents, sessions=agents // 2 + rounds * writes + writes)
    bare = [request("GET", "/bench/bare")] * reads
    kinds: dict[str, list[Sample]] = {"bare": [], "check": [], "introspect": [], "renew": [], "create": []}
    with serving(root) as server:
        server.measure(bare[: reads // 4])
        server.measure(check_requests(made, len(made.sessions), len(made.sessions)))
        server.measure(create_requests(made, 0, agents // 10), 201)
        for number in range(rounds):
            kinds["bare"].append(server.measure(bare))
            kinds["check"].append(server.measure(check_requests(made, reads)))
            kinds["introspect"].append(server.measure(introspection_requests(made, reads)))
            kinds["renew"].append(server.measure(renew_requests(made, number * writes, writes)))
            kinds["create"].append(server.measure(create_requests(made, number * writes, writes), 201))
    base, check, introspect, renew, create = (medians(samples) for samples in kinds.values())
    print({name: medians(samples) for name, samples in kinds.items()}, file=sys.stderr)
    return [
        Row("bare route", f"{base.per_second:,.0f}/s, {base.cpu_us:.0f} µs", "–", True),
        Row("token check", f"{check.per_second:,.0f}/s, {check.cpu_us:.0f} µs", "–", True),
        Row("introspection", f"{introspect.per_second:,.0f}/s, {introspect.cpu_us:.0f} µs", "–", True),
        Row("renewal", f"{renew.per_second:,.0f}/s, {renew.cpu_us:.0f} µs", "–", True),
        Row("session creation", f"{create.per_second:,.0f}/s, {create.cpu_us:.0f} µs", "–", True),
        ratio("token check, throughput of the bare route", check.per_second / base.per_second, 0.80, least=True),
        ratio("token check, CPU of the bare route", check.cpu_us / base.cpu_us, 1.30, least=False),
        ratio("introspection, throughput of the bare route", introspect.per_second / base.per_second, 0.6, least=True),
        ratio("renewal, throughput", renew.per_second / base.per_second, 0.20, least=True),
        ratio("renewal, CPU", renew.cpu_us / base.cpu_us, 5, least=False),
        ratio("creation, throughput", create.per_second / base.per_second, 0.20, least=True),
        ratio("creation, CPU", create.cpu_us / base.cpu_us, 5, least=False),
    ]


def flatness(small: Path, large: Path, *, rounds: int, reads: int, many: int, warm: int) -> list[Row]:
    """Compare the token check with few and with many sessions in the database."""
    few, lots = make_home(small, 100, 1000), make_home(large, 2000, many)
    speeds: list[float] = []
    with serving(small) as one, serving(large) as other:
        for server, made in ((one, few), (other, lots)):
            server.measure(check_requests(made, warm, 1000))
        for _ in range(rounds):
            slow = one.measure(check_requests(few, reads, 1000))
            fast = other.measure(check_requests(lots, reads, 1000))
            speeds.append(fast.per_second / slow.per_second)
    return [
        ratio(f"token check with {many:,} sessions, of that with 1,000", statistics.median(speeds), 0.9, least=True)
    ]


def under_attack(root: Path, *, rounds: int, reads: int, guesses: int, warm: int) -> list[Row]:
    """Compare the token check's p99 with and without eight wrong passwords at a time."""
    made = make_home(root, 10, 1000)
    factors: list[float] = []
    with serving(root) as server:
        server.measure(check_requests(made, warm))
        for number in range(rounds):
            calm = server.measure(check_requests(made, reads)).p99_ms
            factors.append(
                _p99_under_wrong_passwords(server, made, reads, range(number * guesses, (number + 1) * guesses)) / calm
            )
    return [ratio("token check, p99 during 8 wrong passwords", statistics.median(factors), 3, least=False)]


def _p99_under_wrong_passwords(server: Server, made: Prepared, reads: int, numbers: range) -> float:
    async def both() -> list[list[Answer]]:
        guesses = [
            [request("GET", "/v1/agents", X_Master_Password=f"wrong guess {one} {number}") for number in numbers]
            for one in range(8)
        ]
        attack = asyncio.ensure_future(load(server.port, guesses))
        answers = await load(server.port, spread(check_requests(made, reads), CONNECTIONS), keep_bodies=False)
        await attack
        return answers

    times = sorted(answer.seconds for batch in uvloop.run(both()) for answer in batch)
    return times[int(len(times) * 0.99)] * 1000


def starting(empty: Path, large: Path, *, rounds: int) -> list[Row]:
    """Measure start to ready, `daemon status`, and memory."""
    fresh = [_seconds_to_ready(empty / str(number)) for number in range(rounds)]
    full = [_seconds_to_ready(large) for _ in range(rounds)]
    first, later = statistics.median(fresh), statistics.median(full)
    status = _status_seconds(large, rounds)
    return [
        ratio("start to ready on an empty home", first, 1.0, least=False, unit=" s"),
        ratio("start to ready with 100,000 sessions, of that", later / first, 1.3, least=False),
        ratio("`daemon status`", status, 0.25, least=False, unit=" s"),
    ]


def _command(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("DAEMON_")} | UNLIMITED
    return subprocess.run(
        [sys.executable, "-m", "daemon", "--home", str(root), *arguments],
        env=env | {"DAEMON_MASTER_PASSWORD": PASSWORD}, capture_output=True, text=True, check=True,
    )  # fmt: skip


def _seconds_to_ready(root: Path) -> float:
    started = time.perf_counter()
    _command(root, "start", "--detach")
    elapsed = time.perf_counter() - started
    _command(root, "stop")
    return elapsed


def _status_seconds(root: Path, rounds: int) -> float:
    _command(root, "start", "--detach")
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        _command(root, "status")
        times.append(time.perf_counter() - started)
    _command(root, "stop")
    return statistics.median(times)


def memory(root: Path, *, requests: int, sessions: int, idle_seconds: float) -> list[Row]:
    """Measure resident memory idle and after many requests, and the processor time of doing nothing."""
    made = make_home(root, sessions // 10, sessions)
    with serving(root) as server:
        before = server.cpu()
        time.sleep(idle_seconds)
        idle_share = (server.cpu() - before) / idle_seconds * 100
        idle = server.stats.memory_info().rss
        tokens = [request("GET", "/v1/session", Authorization=bearer(token)) for _, token in made.sessions]
        for start in range(0, requests, len(tokens)):
            server.measure(tokens[: min(len(tokens), requests - start)])
        after = server.stats.memory_info().rss
    cached = min(sessions, requests)
    allowed = idle * 1.2 + cached * 800
    return [
        ratio("resident memory, idle", idle / 2**20, 110, least=False, unit=" MiB"),
        Row(
            f"resident memory after {requests:,} requests, {cached:,} sessions cached",
            f"{after / 2**20:.0f} MiB", f"≤ {allowed / 2**20:.0f} MiB", after <= allowed,
        ),
        ratio("processor time when idle", idle_share, 1, least=False, unit=" %"),
    ]  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Run every part and report; return 1 if a line does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--quick", action="store_true", help="shortened: proves that it runs, the numbers are rough")
    parser.add_argument("--readme", action="store_true", help="write the table into README.md")
    options = parser.parse_args(arguments)
    quick = options.quick
    rounds, reads, writes, many = (1, 480, 32, 1000) if quick else (7, 16_000, 1200, 100_000)
    requests, sessions = (200, 200) if quick else (1_000_000, 20_000)
    agents, warm, readers = (100, 100, 20) if quick else (2000, 2000, 200)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        parts: list[Callable[[], list[Row]]] = [
            lambda: routes(root / "routes", rounds=rounds, reads=reads, writes=writes, agents=agents),
            lambda: flatness(root / "small", root / "large", rounds=rounds, reads=reads, many=many, warm=warm),
            lambda: conversations(root / "conversations", rounds=rounds, reads=reads, many=many * 10, warm=warm),
            lambda: under_attack(root / "attack", rounds=rounds, reads=reads, guesses=1 if quick else 6, warm=warm),
            lambda: starting(root / "empty", root / "large", rounds=min(rounds, 5)),
            lambda: single_file(root / "single-file", rounds=1 if quick else 10),
            lambda: metrics(root / "metrics", rounds=rounds, reads=reads),
            lambda: streams(
                root / "streams", rounds=min(rounds, 3), seconds=0.3 if quick else 10, readers=readers, warm=warm // 2
            ),
            lambda: engines(root / "engines", rounds=min(rounds, 5), reads=reads, writes=writes),
            lambda: elsewhere(root / "elsewhere", rounds=2 if quick else 200),
            lambda: processes(
                root / "processes", starts=3 if quick else 50, talkers=3 if quick else 50, seconds=0.3 if quick else 10,
                idle=3 if quick else 100, idle_seconds=0.1 if quick else 10, reads=reads,
            ),
            lambda: memory(root / "memory", requests=requests, sessions=sessions, idle_seconds=0.1 if quick else 5),
        ]  # fmt: skip
        rows = [row for part in parts for row in part()]
    _report(rows, readme=options.readme)
    return 0 if all(row.holds for row in rows) else 1


def _report(rows: list[Row], *, readme: bool) -> None:
    lines = ["| what | measured | wanted |", "|---|---|---|"]
    lines += [f"| {row.what} | {row.measured} | {row.wanted}{'' if row.holds else ' (missed)'} |" for row in rows]
    print("\n".join(lines))
    results = REPOSITORY / "bench-results"
    results.mkdir(exist_ok=True)
    (results / "latest.json").write_text(json.dumps([row._asdict() for row in rows], indent=2, ensure_ascii=False))
    if readme:
        file = REPOSITORY / "README.md"
        head, _, rest = file.read_text().partition("<!-- bench:begin -->\n")
        tail = rest.partition("<!-- bench:end -->")[2]
        file.write_text(f"{head}<!-- bench:begin -->\n" + "\n".join(lines) + f"\n<!-- bench:end -->{tail}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
