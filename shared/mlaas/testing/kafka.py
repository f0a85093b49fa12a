"""A real Apache Kafka for tests, and the two things that tests do with it: publish, and read until enough has come."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cloudevents.http import CloudEvent

from .. import events
from ..errors import Malformed
from ..local.kafka_server import KafkaServer, free_port

__all__ = ["publish", "read", "running_kafka"]


@contextmanager
def running_kafka() -> Iterator[KafkaServer]:
    """A broker of its own on free ports of 127.0.0.1, its data in a temporary folder. Raises Unavailable without Kafka's jars."""
    with tempfile.TemporaryDirectory(prefix="mlaas-kafka-") as folder, KafkaServer(Path(folder), free_port(), free_port()) as server:
        yield server


def publish(bootstrap: str, topic: str, messages: Iterable[CloudEvent | bytes]) -> None:
    """Append events, or bytes that are none, and wait until they are acknowledged."""
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", reconnect_backoff_max_ms=500)
    try:
        sent = []
        for message in messages:
            headers, key, value = ([], None, message) if isinstance(message, bytes) else events.to_kafka(message)
            sent.append(producer.send(topic, value=value, key=key, headers=headers))
        for future in sent:
            future.get(timeout=30)
    finally:
        producer.close(timeout=5)


def read(bootstrap: str, topic: str, enough: Callable[[list[CloudEvent]], bool], timeout: float = 30.0) -> list[CloudEvent]:
    """The events of `topic` from its beginning, until there are `enough` of them. Raises TimeoutError, saying how many came."""
    from kafka import KafkaConsumer

    consumer: Any = KafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        group_id=None,
        reconnect_backoff_max_ms=500,
    )
    found: list[CloudEvent] = []
    deadline = time.monotonic() + timeout
    try:
        while not enough(found):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(found)} events in {topic} after {timeout:.0f} s")
            for records in consumer.poll(timeout_ms=100).values():
                found.extend(map(_event, records))
    finally:
        consumer.close()
    return found


def _event(record: Any) -> CloudEvent:
    """The event of a record; data that cannot be parsed, such as JSON nested beyond measure in a dead letter, stay bytes."""
    try:
        return events.from_kafka(dict(record.headers), record.key, record.value)
    except Malformed:
        event = events.from_kafka(dict(record.headers), record.key, b"")
        event.data = record.value
        return event
