"""What it costs agents that somebody watches."""

import statistics
from pathlib import Path

from tests.bench.measure import Row, check_requests, ratio, serving
from tests.bench.prepare import make_home
from tests.support.http import request


def metrics(root: Path, *, rounds: int, reads: int) -> list[Row]:
    """Compare the token check with metrics, which are scraped meanwhile, with that without, interleaved."""
    one, other = make_home(root / "without", 10, 1000), make_home(root / "with", 10, 1000)
    factors: list[float] = []
    with serving(root / "without") as plain, serving(root / "with", DAEMON_SERVER_METRICS="true") as measured:
        checks, scrapes = check_requests(one, reads), [request("GET", "/metrics")] * 2
        watched = [*check_requests(other, reads // 2), *scrapes, *check_requests(other, reads // 2)]
        for server, requests in ((plain, checks), (measured, watched)):
            server.measure(requests[: reads // 4])
        for _ in range(rounds):
            alone = plain.measure(checks).per_second
            factors.append(measured.measure(watched).per_second / alone)
    return [ratio("token check with metrics, of that without", statistics.median(factors), 0.95, least=True)]
