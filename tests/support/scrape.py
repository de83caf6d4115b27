"""What Prometheus would read: the metrics of a daemon at one moment, taken apart by the library's own parser."""

import math
from collections.abc import Iterable

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.support.live import LiveDaemon

ON = {"DAEMON_SERVER_METRICS": "true"}
"""Settings of a daemon with metrics."""

Series = tuple[str, frozenset[tuple[str, str]]]


class Scrape:
    """The numbers of one scrape.

    Args:
        families: as they were parsed.
    """

    def __init__(self, families: Iterable[Metric]) -> None:
        self.families = {family.name: family for family in families}
        self.samples: dict[Series, float] = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """Return one number; 0 where there is none yet."""
        return self.samples.get((name, frozenset(labels.items())), 0.0)

    def has(self, name: str) -> bool:
        """Return whether a metric has any number."""
        return any(known == name for known, _ in self.samples)

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of all numbers with these labels."""
        wanted = set(labels.items())
        return math.fsum(value for (known, of), value in self.samples.items() if known == name and wanted <= of)


def scrape(live: LiveDaemon) -> Scrape:
    """Return the metrics as they are now: a moment passes, so that no remembered answer is given."""
    live.time.advance(1)
    answer = live.anonymous.get("/metrics")
    assert answer.status_code == 200, answer.text
    return Scrape(text_string_to_metric_families(answer.text))
