"""PostgreSQL beside SQLite: the token check, which memory answers, and renewal beside what the server alone does."""

import asyncio
import statistics
import time
from pathlib import Path

import pytest
import uvloop

from daemon.stores.postgres.connection import Connection, Pool
from tests.bench.measure import CONNECTIONS, Row, check_requests, medians, ratio, renew_requests, serving
from tests.bench.prepare import make_home
from tests.support.daemon_process import cli
from tests.support.http import spread
from tests.support.postgres import drop_template, fresh_database

_CHECK = "token check on PostgreSQL, of that on SQLite"
_RENEWAL = "renewal on PostgreSQL"


def engines(root: Path, *, rounds: int, reads: int, writes: int) -> list[Row]:
    """Serve equal rows from both engines, interleaved; without a PostgreSQL server there is nothing to measure."""
    try:
        with fresh_database(migrated=False) as url:
            return _compare(root, url, rounds=rounds, reads=reads, writes=writes)
    except pytest.skip.Exception:
        return [Row(name, "no PostgreSQL", "–", True) for name in (_CHECK, _RENEWAL)]
    finally:
        drop_template()


def _compare(root: Path, url: str, *, rounds: int, reads: int, writes: int) -> list[Row]:
    file = root / "file"
    made = make_home(file, agents=100, sessions=1000 + rounds * writes)
    copied = cli(file, "db", "copy", "--from", f"sqlite://{file / 'daemon.db'}", "--to", url)
    assert copied.code == 0, copied.err
    shares, renewals, alone = list[float](), [], list[float]()
    with serving(file) as one, serving(root / "home", DAEMON_DATABASE_URL=url) as other:
        for server in (one, other):
            server.measure(check_requests(made, 2000))
        for number in range(rounds):
            for pair in ((one, other), (other, one)):  # whatever else the machine does meanwhile favours neither
                speed = {server: server.measure(check_requests(made, reads // 2)).per_second for server in pair}
                shares.append(speed[other] / speed[one])
            renewals.append(other.measure(renew_requests(made, number * writes, writes)))
            ids = [session for session, _ in made.sessions[number * writes : (number + 1) * writes]]
            alone.append(uvloop.run(_updates(url, ids)))
    renewal, bare = medians(renewals), statistics.median(alone)
    return [
        ratio(_CHECK, statistics.median(shares), 0.9, least=True),
        Row(
            _RENEWAL,
            f"{renewal.per_second:,.0f}/s; a bare UPDATE … RETURNING: {bare:,.0f}/s ({renewal.per_second / bare:.2f}×)",
            "–", True,
        ),
    ]  # fmt: skip


async def _updates(url: str, ids: list[str]) -> float:
    """Return how many sessions a second are updated over a pool like the daemon's, by as many who wait."""
    pool = Pool(url, CONNECTIONS)

    async def update(some: list[str]) -> None:
        for one in some:

            async def run(raw: Connection, one: str = one) -> object:
                return await raw.fetchrow(
                    "UPDATE sessions SET renewal_count = renewal_count + 0 WHERE id = $1 RETURNING id", one
                )

            await pool.run(run)

    started = time.perf_counter()
    await asyncio.gather(*(update(some) for some in spread(ids, CONNECTIONS)))
    elapsed = time.perf_counter() - started
    await pool.close()
    return len(ids) / elapsed
