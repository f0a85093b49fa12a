"""Kafka: publish CloudEvents to the topic of requests and read those of another topic."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any

from cloudevents.http import CloudEvent

from .. import events, references
from ..errors import Malformed, TooLarge, Unavailable
from ..kafka_connection import connecting, settings_for
from ..settings import Settings

__all__ = ["DEAD_LETTERS", "EVENTS", "REQUESTS", "EventClient"]

REQUESTS = "mlaas.requests"
EVENTS = "mlaas.events"
DEAD_LETTERS = "mlaas.dead-letters"
_SILENCE_SECONDS = 15.0

Record = tuple[list[tuple[str, bytes]], bytes | None, bytes]  # headers, key, value


class EventClient:
    """Kafka, as the settings say or at `HOST:PORT`: publish requests, read replies. Use it as a context manager.

    Raises InvalidRequest, naming the setting, where Kafka refuses the connection, and Unavailable where none answers.
    """

    def __init__(self, kafka: str | Settings, *, topic: str = EVENTS) -> None:
        from kafka import KafkaConsumer, KafkaProducer, TopicPartition

        self._settings = settings = settings_for(kafka)
        self._unread: deque[Any] = deque()
        with ExitStack() as made, connecting(settings) as options:
            # Without idempotence no outage leaves the producer unusable; with one request at a time its order stays.
            limits = {
                "max_in_flight_requests_per_connection": 1,
                "max_block_ms": 5000,
                "request_timeout_ms": 5000,
                "delivery_timeout_ms": 10_000,
            }
            self._producer = KafkaProducer(**options, **limits, acks="all", linger_ms=2, enable_idempotence=False, metrics_enabled=False)
            made.callback(self._producer.close, timeout=1)
            self._consumer = KafkaConsumer(**options, enable_auto_commit=False, fetch_max_wait_ms=50)
            made.callback(self._consumer.close)
            partitions = self._consumer.partitions_for_topic(topic)
            if not partitions:
                raise Unavailable(f"Kafka has no topic {topic}", remedy="Start the platform with `mlaas up`; it makes the topics.")
            self._partitions = [TopicPartition(topic, number) for number in sorted(partitions)]
            self._consumer.assign(self._partitions)
            self.from_now()
            made.pop_all()

    def __enter__(self) -> EventClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def from_now(self) -> None:
        """Read what is published from now on."""
        self._unread.clear()
        self._consumer.seek_to_end(*self._partitions)
        for partition in self._partitions:  # seeking is lazy: fix the position before anything is sent
            self._consumer.position(partition)

    def from_beginning(self) -> None:
        """Read everything that the topic still holds."""
        self._unread.clear()
        self._consumer.seek_to_beginning(*self._partitions)

    def send(self, requested: Iterable[CloudEvent], *, structured: bool = False, patience: float = 60.0) -> int:
        """Publish events, durably: returns how many when Kafka has acknowledged all of them.

        What Kafka did not acknowledge is sent again, with the same id, until `patience` seconds have passed: at least once,
        and in the order given for each partition key unless Kafka goes away in the middle. Raises TooLarge, Unavailable.
        """
        left = [events.to_kafka(event, structured=structured) for event in requested]
        for headers, _, value in left:  # before any is sent
            size = len(value) + sum(len(name) + len(text) for name, text in headers)
            references.check_event_size(size, self._settings.max_event_bytes)
        count, deadline = len(left), time.monotonic() + patience
        while left := self._publish(left):
            if time.monotonic() > deadline:
                detail = f"Kafka did not take {len(left)} of {count} events within {patience:.0f} s"
                raise Unavailable(detail, remedy="Send them again; the same id gives the same reply.")
            time.sleep(0.2)
        return count

    def _publish(self, records: Sequence[Record]) -> list[Record]:
        """Those of `records` that Kafka did not acknowledge."""
        from kafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError, RecordListTooLargeError

        pending: list[tuple[Record, Any]] = []
        failed: list[Record] = []
        try:
            for number, (headers, key, value) in enumerate(records):
                try:
                    pending.append((records[number], self._producer.send(REQUESTS, value=value, key=key, headers=headers)))
                except KafkaTimeoutError:  # nobody tells the topic's partitions, or takes what waits already
                    failed = list(records[number:])
                    break
            for record, future in pending:
                try:
                    future.get(timeout=15)
                except (MessageSizeTooLargeError, RecordListTooLargeError):
                    raise
                except KafkaError:
                    failed.append(record)
        except (MessageSizeTooLargeError, RecordListTooLargeError):
            raise TooLarge("an event is larger than Kafka takes", remedy="Send a reference to the data instead.") from None
        return failed

    def watch(self, *, seconds: float | None = None) -> Iterator[CloudEvent]:
        """Events as they arrive; for ever, or until `seconds` have passed."""
        deadline = time.monotonic() + seconds if seconds is not None else None
        while deadline is None or time.monotonic() < deadline:
            if not self._unread:
                self._unread.extend(record for records in self._consumer.poll(timeout_ms=100).values() for record in records)
            while self._unread:  # kept between calls: who stops watching in the middle goes on there
                record = self._unread.popleft()
                with suppress(Malformed):
                    yield events.from_kafka(dict(record.headers), record.key, record.value)

    def held(self) -> Iterator[Any]:
        """The Kafka records that the topic holds now, the oldest of each partition first. Raises Unavailable."""
        from kafka.errors import KafkaError

        try:
            ends = self._consumer.end_offsets(self._partitions)
            self.from_beginning()
            deadline = time.monotonic() + _SILENCE_SECONDS
            while any(self._consumer.position(partition) < end for partition, end in ends.items()):
                for records in self._consumer.poll(timeout_ms=200).values():
                    deadline = time.monotonic() + _SILENCE_SECONDS
                    yield from records
                if time.monotonic() > deadline:
                    raise Unavailable("Kafka went away while it was read", remedy="Try again in a moment.")
        except KafkaError as error:
            raise Unavailable("Kafka went away while it was read", remedy="Try again in a moment.") from error

    def replies(
        self, ids: Sequence[str], *, seconds: float, until: Callable[[CloudEvent], bool] = lambda event: True
    ) -> dict[str, CloudEvent]:
        """The first event caused by each of `ids` that satisfies `until`. Raises Unavailable when `seconds` have passed.

        Data that a reply only refers to, because they are too large for an event, are read from the storage and verified.
        """
        wanted, found = set(ids), {}
        for event in self.watch(seconds=seconds):
            cause = event.get("causationid")
            if cause in wanted and cause not in found and until(event):
                found[cause] = references.resolved(event, self._settings)
                if len(found) == len(wanted):
                    return found
        raise Unavailable(
            f"{len(wanted) - len(found)} of {len(wanted)} replies did not come within {seconds:.0f} s",
            remedy="See `mlaas watch --dead-letters`; a redelivered request gives the same reply.",
        )

    def close(self) -> None:
        """Leave Kafka."""
        self._producer.close(timeout=5)
        self._consumer.close()
