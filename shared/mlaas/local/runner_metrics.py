"""What the single-machine runner counts, in Prometheus' text format: on a cluster Knative's own dispatchers give the like."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["render"]

_STATES = ("idle", "starting", "running", "stopping")
_GAUGES = {"lag": "Records that are not at their end.", "in_flight": "Events that are fetched and not at their end."}
_COUNTERS = {
    "delivered": "Events that a subscriber took.",
    "retried": "Tries that failed and were followed by another.",
    "dead_lettered": "Events that went to the dead letters.",
}


def render(state: Callable[[], Mapping[str, Any]], *further: Any) -> bytes:
    """The text for `Platform.state` and `further` collectors; Prometheus' library is imported at the first scrape."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    for one in (_Runner(state), *further):
        registry.register(one)
    return generate_latest(registry)


@dataclass(frozen=True)
class _Runner:
    state: Callable[[], Mapping[str, Any]]

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> Iterator[Any]:
        state = self.state()
        yield from _triggers(state["triggers"])
        yield from _functions(state["functions"])
        yield from _jobs(state["jobs"])


def _triggers(triggers: Mapping[str, Mapping[str, int]]) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    for kind, names in ((GaugeMetricFamily, _GAUGES), (CounterMetricFamily, _COUNTERS)):
        for name, text in names.items():
            family = kind(f"mlaas_trigger_{name}", text, labels=["trigger"])
            for trigger, counts in triggers.items():
                family.add_metric([trigger], counts[name])
            yield family


def _functions(functions: Mapping[str, Mapping[str, Any]]) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    states = GaugeMetricFamily("mlaas_function_state", "1 for the state that the function is in.", labels=["function", "state"])
    restarts = CounterMetricFamily("mlaas_function_restarts", "How often the function's process died.", labels=["function"])
    for name, one in functions.items():
        for state in _STATES:
            states.add_metric([name, state], float(one["state"] == state))
        restarts.add_metric([name], one["restarts"])
    yield from (states, restarts)


def _jobs(jobs: Mapping[str, Mapping[str, Any]]) -> Iterator[Any]:
    from prometheus_client.core import GaugeMetricFamily

    unfinished = GaugeMetricFamily("mlaas_jobs_unfinished", "Jobs that were begun and have not ended.", labels=["job"])
    for name, one in jobs.items():
        unfinished.add_metric([name], one["unfinished"])
    yield unfinished
