"""Conversations: what binding one that is known costs, and whether a million of them make a difference."""

import json
import random
import statistics
from pathlib import Path

from daemon.stores.conversations import SIZE
from tests.bench.measure import Row, Sample, Server, bearer, medians, ratio, serving
from tests.bench.prepare import add_conversations, make_home
from tests.support.http import request

AGENTS = 16
FEW = 1000
BODY = json.dumps({"provider": "anthropic", "model": "claude-sonnet-4-5"}).encode()

Known = list[tuple[str, str]]


def conversations(root: Path, *, rounds: int, reads: int, many: int, warm: int) -> list[Row]:
    """Compare binding with the bare route, and with few and many conversations in the database."""
    small, large = root / "small", root / "large"
    few = add_conversations(small, make_home(small, AGENTS, AGENTS), FEW)
    lots = add_conversations(large, make_home(large, AGENTS, AGENTS), many)
    chosen = random.Random(1)
    samples: dict[str, list[Sample]] = {"bare": [], "few": [], "many": [], "random": []}
    with serving(small) as one, serving(large) as other:
        for server, some in ((one, few), (other, lots[-FEW:])):
            server.measure(binds(some, warm))
        pair = [("few", one, few), ("many", other, lots[-FEW:])]
        for _ in range(rounds):
            samples["bare"].append(one.measure([request("GET", "/bench/bare")] * reads))
            for name, server, some in pair:
                samples[name].append(server.measure(binds(some, reads)))
            pair.reverse()  # whatever else the machine does meanwhile favours neither
        before = resident(other)
        for _ in range(rounds):
            samples["random"].append(other.measure(binds(chosen.sample(lots, min(reads, many)), reads)))
        grown = resident(other) - before
    base, known, crowded, anyone = (medians(samples[name]) for name in ("bare", "few", "many", "random"))
    flat = statistics.median(
        more.per_second / less.per_second for less, more in zip(samples["few"], samples["many"], strict=True)
    )
    return [
        Row("bind of a known conversation", f"{known.per_second:,.0f}/s, {known.cpu_us:.0f} µs", "–", True),
        ratio("bind, throughput of the bare route", known.per_second / base.per_second, 0.6, least=True),
        ratio("bind, CPU of the bare route", known.cpu_us / base.cpu_us, 1.7, least=False),
        ratio(f"bind among {many:,} conversations, of that among 1,000", flat, 0.9, least=True),
        Row(
            f"bind of any of {many:,}, each read from the database",
            f"{anyone.per_second:,.0f}/s, {anyone.per_second / crowded.per_second:.2f}× of one in memory", "–", True,
        ),
        ratio(f"resident memory that those took, {SIZE:,} remembered", grown / 2**20, 48, least=False, unit=" MiB"),
    ]  # fmt: skip


def binds(known: Known, count: int) -> list[bytes]:
    """Return requests that bind known conversations in turn."""
    made = [request("PUT", f"/v1/conversations/{one}", body=BODY, Authorization=bearer(token)) for token, one in known]
    return [made[number % len(made)] for number in range(count)]


def resident(server: Server) -> int:
    """Return the bytes of memory that a server holds."""
    return int(server.stats.memory_info().rss)
