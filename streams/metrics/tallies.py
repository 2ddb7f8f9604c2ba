"""Counters and histograms that cost a fraction of a microsecond, for what happens several times an order.

Those of `prometheus_client` take several times as long, because any thread may use them. These belong to the event
loop. Another thread may read them meanwhile, and then misses at most what happens just then.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import inf

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

Labels = tuple[str | int, ...]


class Tally(Collector):
    """A counter by labels."""

    kind = "counter"

    def __init__(self, name: str, meaning: str, labels: Sequence[str]) -> None:
        """``name`` is without `_total`."""
        self.name, self.meaning, self.labels = f"{name}_total", meaning, tuple(labels)
        self._counts: dict[Labels, int] = {}
        if not labels:
            self.add(count=0)

    def add(self, *labels: str | int, count: int = 1) -> None:
        """Count; with 0, make the series."""
        self._counts[labels] = self._counts.get(labels, 0) + count

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the counter."""
        family = CounterMetricFamily(self.name, self.meaning, labels=self.labels)
        for labels, count in list(self._counts.items()):
            family.add_metric([*map(str, labels)], count)
        yield family


class Histogram(Collector):
    """A histogram by labels."""

    kind = "histogram"

    def __init__(self, name: str, meaning: str, bounds: Sequence[float], labels: Sequence[str]) -> None:
        """``bounds`` are the upper bounds of the buckets; one more bucket has the rest."""
        self.name, self.meaning, self.labels = name, meaning, tuple(labels)
        self._bounds = tuple(bounds)
        self._series: dict[Labels, tuple[list[int], list[float]]] = {}
        """Labels -> observations of each bucket, and the sum of all in a list of one."""
        if not labels:
            self.start()

    def start(self, *labels: str | int) -> tuple[list[int], list[float]]:
        """Make a series, and return it."""
        return self._series.setdefault(labels, ([0] * (len(self._bounds) + 1), [0.0]))

    def observe(self, value: float, *labels: str | int) -> None:
        """Record a value."""
        buckets, total = self._series.get(labels) or self.start(*labels)
        buckets[bisect_left(self._bounds, value)] += 1
        total[0] += value

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the histogram. Buckets of Prometheus include the smaller ones."""
        family = HistogramMetricFamily(self.name, self.meaning, labels=self.labels)
        bounds = ["+Inf" if bound == inf else str(float(bound)) for bound in (*self._bounds, inf)]
        for labels, (buckets, [total]) in list(self._series.items()):
            family.add_metric([*map(str, labels)], [*zip(bounds, accumulate(buckets), strict=True)], total)
        yield family
