"""The kinds of metric: counters, histograms and gauges that are plain numbers until Prometheus' library is asked for its form of them."""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import MlaasError

__all__ = ["Counter", "Gauge", "Histogram", "Labels"]

Labels = tuple[str, ...]

_lock = threading.Lock()

log = logging.getLogger("mlaas")


@dataclass(frozen=True, eq=False, repr=False)
class Counter:
    """Something that only grows. `name` ends in _total."""

    name: str
    help: str
    labels: Labels = ()
    _values: dict[Labels, float] = field(default_factory=dict)

    def add(self, *labels: str, by: float = 1.0) -> None:
        """Count `by` more, with values for the labels in their order."""
        with _lock:
            self._values[labels] = self._values.get(labels, 0.0) + by

    def family(self) -> Any:
        """Prometheus' form of it."""
        from prometheus_client.core import CounterMetricFamily

        family = CounterMetricFamily(self.name, self.help, labels=self.labels)
        with _lock:
            for labels, value in self._values.items():
                family.add_metric(labels, value)
        return family


@dataclass(frozen=True, eq=False, repr=False)
class Histogram:
    """How often a value was at most each of `buckets`, and the sum of the values."""

    name: str
    help: str
    buckets: tuple[float, ...]
    labels: Labels = ()
    _counts: dict[Labels, list[int]] = field(default_factory=dict)
    _sums: dict[Labels, float] = field(default_factory=dict)

    def observe(self, value: float, *labels: str) -> None:
        """Count one `value`, with values for the labels in their order."""
        with _lock:
            self._counts.setdefault(labels, [0] * (len(self.buckets) + 1))[bisect_left(self.buckets, value)] += 1
            self._sums[labels] = self._sums.get(labels, 0.0) + value

    def family(self) -> Any:
        """Prometheus' form of it."""
        from prometheus_client.core import HistogramMetricFamily

        family = HistogramMetricFamily(self.name, self.help, labels=self.labels)
        with _lock:
            for labels, counts in self._counts.items():
                total, buckets = 0, []
                for bound, count in zip([*map(str, self.buckets), "+Inf"], counts, strict=True):
                    total += count
                    buckets.append((bound, total))
                family.add_metric(labels, buckets, self._sums[labels])
        return family


@dataclass(frozen=True, eq=False, repr=False)
class Gauge:
    """Something that is asked for when it is scraped."""

    name: str
    help: str
    labels: Labels = ()
    _read: list[Callable[[], Mapping[Labels, float]]] = field(default_factory=list)

    def read_with(self, read: Callable[[], Mapping[Labels, float]]) -> None:
        """From now on `read` gives the values by label values; a scrape goes without them when it raises a MlaasError."""
        self._read[:] = [read]

    def family(self) -> Any:
        """Prometheus' form of it."""
        from prometheus_client.core import GaugeMetricFamily

        family = GaugeMetricFamily(self.name, self.help, labels=self.labels)
        for read in self._read:
            try:
                values = read()
            except MlaasError as error:
                log.warning("metrics.not_read", extra={"fields": {"metric": self.name, "reason": error.detail}})
                continue
            for labels, value in values.items():
                family.add_metric(labels, value)
        return family
