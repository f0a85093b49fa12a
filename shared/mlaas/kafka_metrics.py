"""What waits in Kafka as Prometheus' gauges, for whoever is scraped: the local gateway, and on a cluster the relay."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from .errors import MlaasError
from .kafka_lag import Waiting, waiting
from .settings import Settings

__all__ = ["KafkaCollector"]

FRESH_SECONDS = 10.0  # Kafka is asked at most so often, however often somebody scrapes

log = logging.getLogger("mlaas")


class KafkaCollector:
    """To be registered: mlaas_kafka_up, and while Kafka answers mlaas_kafka_lag_records and mlaas_dead_letters."""

    def __init__(self, settings: Settings, ask: Callable[[Settings], Waiting] = waiting) -> None:
        self._settings, self._ask = settings, ask
        self._lock, self._asked = threading.Lock(), float("-inf")
        self._known: Waiting | None = None

    def describe(self) -> list[Any]:
        """Nothing: registering must not ask Kafka."""
        return []

    def collect(self) -> Iterator[Any]:
        """The gauges as they are now, or were a few seconds ago."""
        from prometheus_client.core import GaugeMetricFamily

        known = self._look()
        yield GaugeMetricFamily("mlaas_kafka_up", "Whether Kafka says what waits (1) or not (0).", value=float(known is not None))
        if known is None:
            return
        lag = GaugeMetricFamily("mlaas_kafka_lag_records", "Records that are not at their end.", labels=["group", "topic"])
        for one in known.lags:
            lag.add_metric([one.group, one.topic], one.lag)
        yield lag
        yield GaugeMetricFamily("mlaas_dead_letters", "Records in the topic of dead letters.", value=known.dead_letters.count)

    def _look(self) -> Waiting | None:
        with self._lock:
            if time.monotonic() - self._asked > FRESH_SECONDS:
                try:
                    self._known = self._ask(self._settings)
                except MlaasError as error:
                    self._known = None
                    log.warning("kafka.unknown", extra={"fields": {"reason": error.detail}})
                self._asked = time.monotonic()
            return self._known
