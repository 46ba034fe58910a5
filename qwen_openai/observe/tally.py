"""Counters and histograms that cost next to nothing to add to: one dictionary each.

One thread adds, others may read meanwhile; Prometheus' own take a lock and a linear search for
every value. Knows no metric of ours. `families` gives what prometheus_client renders.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]


class Counts:
    """A counter for each set of label values."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], known: Iterable[Labels] = ()
    ) -> None:
        """``known`` are label values to show from the start, at nought: what has never happened
        can then be told from what is not counted."""
        self._name, self._text, self._labels = name, text, labels
        self._counts: dict[Labels, float] = dict.fromkeys(known, 0.0)

    def add(self, labels: Labels, amount: float = 1) -> None:
        """Count."""
        self._counts[labels] = self._counts.get(labels, 0.0) + amount

    def family(self) -> Metric:
        """Return the counts as they are now."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for labels, count in list(self._counts.items()):
            family.add_metric(labels, count)
        return family


class Spread:
    """A histogram for each set of label values. ``bounds`` are the upper ends of its buckets."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]
    ) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._bounds = list(bounds)
        self._ends = [*map(floatToGoString, bounds), "+Inf"]
        # For each: how many values each bucket got, and last their sum.
        self._values: dict[Labels, list[float]] = {}

    def add(self, labels: Labels, value: float) -> None:
        """Take a value."""
        values = self._values.get(labels)
        if values is None:
            values = self._values[labels] = [0.0] * (len(self._bounds) + 2)
        values[bisect_left(self._bounds, value)] += 1
        values[-1] += value

    def family(self) -> Metric:
        """Return the buckets as they are now."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for labels, values in list(self._values.items()):
            *buckets, total = values
            rising: list[tuple[str, float]] = []
            count = 0.0
            for end, bucket in zip(self._ends, buckets, strict=True):
                count += bucket
                rising.append((end, count))
            family.add_metric(labels, rising, total)
        return family
