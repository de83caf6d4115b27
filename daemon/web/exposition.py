"""The metrics as Prometheus reads them: in its text format 0.0.4, or as OpenMetrics 1.0. Here alone it is known."""

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any, cast

from prometheus_client import ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from daemon.histogram import Histogram
from daemon.web.context import Services
from daemon.web.families import FAMILIES, Family, Seen

FRESH_SECONDS = 1.0
"""For so long everybody gets the same numbers: however often they are asked for, the database is not."""

_KINDS: dict[str, Callable[..., Any]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}
_VERSION = re.compile(r";\s*version=([^;]*)")
_SPOKEN = {"0.0.4", "1.0.0"}


class Exposition(Collector):
    """Takes the numbers on the event loop, and writes them down on a thread: where all routes are in use, for 10 ms."""

    def __init__(self) -> None:
        self._taking = asyncio.Lock()
        self._taken = float("-inf")
        self._metrics: list[Metric] = []
        self._texts: dict[str, bytes] = {}
        self._process = ProcessCollector(registry=None)

    async def text(self, services: Services, accept: str) -> tuple[bytes, str]:
        """Return the metrics, at most a second old, and their media type.

        Args:
            services: what knows the numbers.
            accept: the request's Accept header.
        """
        encode, media_type = _encoder(accept)
        async with self._taking:
            now = services.measures.clock.monotonic()
            if now - self._taken >= FRESH_SECONDS:
                seen = Seen(services, services.processes.counts(), await services.measures.census())
                self._metrics = [_metric(family, seen) for family in FAMILIES]
                self._taken, self._texts = now, {}
            if media_type not in self._texts:
                self._texts[media_type] = await asyncio.to_thread(encode, self)
            return self._texts[media_type], media_type

    def collect(self) -> Iterator[Metric]:
        """Yield what was taken, and what the system says of this process; for the encoder."""
        yield from self._metrics
        yield from self._process.collect()


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    """Return what writes metrics down, and its media type: the first format asked for that is spoken, else 0.0.4.

    What is asked for is named back, and may be no version at all: only those that are spoken are passed on.
    """
    spoken = (part for part in accept.lower().split(",") if not (asked := _VERSION.search(part)) or _is_spoken(asked))
    return choose_encoder(",".join(spoken))


def _is_spoken(asked: re.Match[str]) -> bool:
    return asked[1].strip() in _SPOKEN


def _metric(family: Family, seen: Seen) -> Metric:
    made: Any = _KINDS[family.kind](family.name, family.meaning, labels=family.labels)
    for labels, number in family.read(seen):
        if isinstance(number, Histogram):
            bounds = [*map(floatToGoString, number.bounds), "+Inf"]
            made.add_metric(labels, list(zip(bounds, number.cumulative(), strict=True)), number.total)
        else:
            made.add_metric(labels, number)
    return cast("Metric", made)
