"""Two daemons on one database: how soon one refuses what was revoked on the other."""

import time
from pathlib import Path

import pytest

from tests.bench.measure import Row, ratio
from tests.support.pair import Pair, refused_after
from tests.support.postgres import drop_template, fresh_database

_WHAT = "refused on the other daemon, p99"


def elsewhere(root: Path, *, rounds: int) -> list[Row]:
    """Revoke on one daemon what the other has in memory; without a PostgreSQL server there is nothing to measure."""
    root.mkdir()
    try:
        with fresh_database() as url:
            pair = Pair(root, url)
            try:
                delays = sorted(_delay(pair) for _ in range(rounds))
            finally:
                pair.stop()
    except pytest.skip.Exception:
        return [Row(_WHAT, "no PostgreSQL", "≤ 1,000 ms", True)]
    finally:
        drop_template()
    return [ratio(_WHAT, delays[int(len(delays) * 0.99)] * 1000, 1_000, least=False, unit=" ms")]


def _delay(pair: Pair) -> float:
    """Return how long after the acknowledgement on A the token is refused by B, which accepted it just before."""
    session = pair.a.new_session()
    client = pair.b.agent(session["token"])
    for _ in range(3):
        client.get("/v1/session").raise_for_status()
    pair.a.owner.delete(f"/v1/sessions/{session['id']}").raise_for_status()
    delay = refused_after(lambda: client.get("/v1/session").status_code == 200, time.monotonic())
    client.close()
    return delay
