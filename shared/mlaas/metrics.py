"""What a process counts, in a form that costs nothing until somebody scrapes it: Prometheus' library is imported then."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

__all__ = ["CONTENT_TYPE", "observe", "render"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds

_lock = threading.Lock()
_counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0] * (len(_BUCKETS) + 1))
_sums: dict[tuple[str, str], float] = defaultdict(float)


def observe(capability: str, outcome: str, seconds: float) -> None:
    """Count one request that `capability` answered with `outcome` after `seconds`."""
    with _lock:
        _counts[capability, outcome][bisect_left(_BUCKETS, seconds)] += 1
        _sums[capability, outcome] += seconds


def render() -> bytes:
    """The counts in Prometheus' text format."""
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Requests())
    return generate_latest(registry)


class _Requests:
    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import HistogramMetricFamily

        family = HistogramMetricFamily("mlaas_request_seconds", "Time from a request to its answer.", labels=["capability", "outcome"])
        with _lock:
            for labels, counts in _counts.items():
                total, buckets = 0, []
                for bound, count in zip([*map(str, _BUCKETS), "+Inf"], counts, strict=True):
                    total += count
                    buckets.append((bound, total))
                family.add_metric(labels, buckets, _sums[labels])
        yield family
