"""The clients of Kafka: durable appends, topics, consumers. The only module of the runner that knows kafka-python."""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections.abc import Mapping
from typing import Any

from ..errors import TooLarge, Unavailable
from .records import Record

with warnings.catch_warnings():  # kafka-python reads its schemas with a function that Python 3.11 deprecates and 3.13 has again
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka import ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
    from kafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

__all__ = [
    "ConsumerRebalanceListener",
    "Journal",
    "KafkaConsumer",
    "KafkaError",
    "OffsetAndMetadata",
    "TopicPartition",
    "consumer",
    "create_topics",
]

RECORD_BYTES = 4 * 1024**2  # room for a request of Kafka's default size and what a dead letter adds to it

log = logging.getLogger("mlaas")


class Journal:
    """Appends records to topics, durably."""

    def __init__(self, bootstrap: str) -> None:
        self.stopping = threading.Event()
        # Without idempotence no outage leaves the producer unusable; whoever waits for each acknowledgement keeps the order himself.
        self._producer = KafkaProducer(
            bootstrap_servers=bootstrap.split(","),
            acks="all",
            enable_idempotence=False,
            max_request_size=RECORD_BYTES,
            max_block_ms=5000,
            request_timeout_ms=5000,
            delivery_timeout_ms=10000,
            reconnect_backoff_max_ms=1000,
            metrics_enabled=False,
        )

    def append(self, topic: str, record: Record, patience: float = float("inf")) -> None:
        """Append and wait for the acknowledgement, `patience` seconds while the broker is away. Raises TooLarge, Unavailable."""
        headers, key, value = record
        deadline = time.monotonic() + patience
        while True:
            try:
                self._producer.send(topic, value=value, key=key, headers=headers).get(timeout=15)
                return
            except (MessageSizeTooLargeError, RecordListTooLargeError):
                raise TooLarge("the event is larger than the broker takes", remedy="Send a reference to the data instead.") from None
            except KafkaError as error:
                log.warning("broker.away", extra={"fields": {"topic": topic, "reason": type(error).__name__}})
                if self.stopping.is_set() or time.monotonic() > deadline:
                    raise Unavailable("the event broker is away", remedy="Send the event again in a moment.") from None
                self.stopping.wait(0.5)

    def close(self) -> None:
        """Let go of the connection."""
        self._producer.close(timeout=2)


def create_topics(bootstrap: str, topics: Mapping[str, int], large: set[str]) -> None:
    """Create those of `topics` (with how many partitions) that are missing; `large` ones take the platform's largest records.

    Raises Unavailable.
    """
    try:
        admin = KafkaAdminClient(bootstrap_servers=bootstrap.split(","), bootstrap_timeout_ms=10000)
        try:
            missing: dict[str, Any] = {
                name: {"num_partitions": count} for name, count in topics.items() if name not in set(admin.list_topics())
            }
            for name in large & set(missing):
                missing[name]["configs"] = {"max.message.bytes": str(RECORD_BYTES)}
            if missing:
                admin.create_topics(missing, wait_for_metadata=True)
        finally:
            admin.close()
    except KafkaError as error:
        raise Unavailable(
            f"Kafka at {bootstrap} cannot be used ({type(error).__name__})", remedy="Start it, or name another: mlaas up --kafka HOST:PORT."
        ) from None


def consumer(bootstrap: str, member: str, group: str) -> KafkaConsumer:
    """A consumer that commits nothing by itself. A `member` that comes back after it was killed gets its partitions at once."""
    return KafkaConsumer(
        bootstrap_servers=bootstrap.split(","),
        group_id=group,
        group_instance_id=f"{group}-{member}",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=6000,
        heartbeat_interval_ms=1000,
        max_partition_fetch_bytes=2 * RECORD_BYTES,
        allow_auto_create_topics=False,
        reconnect_backoff_max_ms=1000,
        bootstrap_timeout_ms=3000,
        request_timeout_ms=10000,
        metrics_enabled=False,
    )
