"""Moves events between Kafka and the functions: what Knative's KafkaSource, Broker and Trigger do.

At least once: an event's offset is committed only after what came of it (the reply, or the dead letter) is durably in
Kafka, and only as far as every earlier event of the partition has come to its end too.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from .. import events
from ..errors import Malformed, MlaasError, TooLarge, Unavailable
from .manifests import Delivery, Trigger
from .records import Event, Record, from_http, from_record

__all__ = ["Answer", "Dispatcher", "Journal", "Subscription", "is_retryable"]

UNFINISHED = 256  # events of one subscription that are fetched and not yet at their end
RECORD_BYTES = 4 * 1024**2  # room for a request of Kafka's default size and what a dead letter adds to it
ERROR_BYTES = 1024

log = logging.getLogger("mlaas")


@dataclass(frozen=True)
class Answer:
    """What a subscriber said. Status 0: nothing, the connection failed."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


Subscriber = Callable[[Event], Answer]


def is_retryable(status: int) -> bool:
    """Whether Knative tries again after an answer with this status."""
    return status == 0 or status in (404, 408, 409, 429) or status >= 500


class Journal:
    """Appends records to topics, durably."""

    def __init__(self, bootstrap: str) -> None:
        self.stopping = threading.Event()
        # Kafka's own limit of the topic decides what is too large; the client must not refuse before.
        self._producer = KafkaProducer(
            bootstrap_servers=bootstrap.split(","),
            acks="all",
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
                    raise Unavailable("the event broker is away") from None
                self.stopping.wait(0.5)

    def close(self) -> None:
        """Let go of the connection."""
        self._producer.close(timeout=2)


@dataclass(order=True)
class _Work:
    due: float
    number: int
    event: Event = field(compare=False)
    place: tuple[TopicPartition, int] = field(compare=False)
    epoch: int = field(compare=False)
    attempt: int = field(compare=False, default=0)


class _Lane:
    """Events that wait for a worker, or for the time of their next try."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._heap: list[_Work] = []
        self._closed = False

    def put(self, work: _Work) -> None:
        with self._changed:
            heapq.heappush(self._heap, work)
            self._changed.notify()

    def take(self) -> _Work | None:
        """The next event that is due, None once closed."""
        with self._changed:
            while not self._closed:
                left = self._heap[0].due - time.monotonic() if self._heap else None
                if left is not None and left <= 0:
                    return heapq.heappop(self._heap)
                self._changed.wait(left)
            return None

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


@dataclass
class _Progress:
    """How far a partition is: offsets that are not at their end, the offset to fetch next, and the last one committed."""

    unfinished: set[int] = field(default_factory=set)
    position: int = 0
    committed: int = -1

    @property
    def done(self) -> int:
        return min(self.unfinished, default=self.position)


class Subscription(ConsumerRebalanceListener):  # type: ignore[misc]
    """A consumer group: `prepare` makes an event of a record or None, `handle` brings it to its end or says when to try again.

    `handle(event, attempt)` returns None when the event is at its end, or the seconds to wait before the next attempt.
    `ordered` keeps events of one key in order, also across attempts; otherwise one that waits holds up no other.
    """

    def __init__(
        self,
        group: str,
        topics: tuple[str, ...],
        handle: Callable[[Event, int], float | None],
        *,
        bootstrap: str,
        member: str,
        prepare: Callable[[Any], Event | None] = from_record,
        workers: int = 4,
        ordered: bool = False,
    ) -> None:
        self.group, self._topics, self._handle, self._prepare, self._ordered = group, topics, handle, prepare, ordered
        self._kafka = {"bootstrap_servers": bootstrap.split(","), "group_id": group, "group_instance_id": f"{group}-{member}"}
        self._stopping, self._drained = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._progress: dict[TopicPartition, _Progress] = {}
        self._epoch = 0
        self._numbers = itertools.count()
        self._lanes = [_Lane() for _ in range(workers if ordered else 1)]
        lanes = self._lanes if ordered else self._lanes * workers
        self._workers = [threading.Thread(target=self._work, args=(lane,), name=f"deliver-{group}", daemon=True) for lane in lanes]
        self._consumer = threading.Thread(target=self._consume_forever, name=f"consume-{group}", daemon=True)
        self.lag = 0

    @property
    def unfinished(self) -> int:
        """Events that are fetched and not at their end."""
        with self._lock:
            return sum(len(progress.unfinished) for progress in self._progress.values())

    def start(self) -> None:
        """Begin to consume."""
        for thread in (*self._workers, self._consumer):
            thread.start()

    def begin_stop(self) -> None:
        """Take no further event; those in flight may finish."""
        self._stopping.set()
        for lane in self._lanes:
            lane.close()

    def join(self, timeout: float) -> None:
        """Wait for what is in flight, commit, and leave the group."""
        deadline = time.monotonic() + timeout
        for thread in self._workers:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._drained.set()
        self._consumer.join(3.0)

    def on_partitions_revoked(self, revoked: Any) -> None:
        """Forget what was fetched: whoever gets the partitions fetches it again from the committed offset."""
        with self._lock:
            self._progress.clear()
            self._epoch += 1

    def on_partitions_assigned(self, assigned: Any) -> None:
        """Nothing to prepare: the progress begins with the first record."""

    def _consume_forever(self) -> None:
        while not self._stopping.is_set():
            try:
                self._consume()
            except Exception as error:  # whatever it is, the subscription must come back; nothing was committed
                level = logging.WARNING if isinstance(error, KafkaError) else logging.ERROR
                log.log(
                    level,
                    "subscription.rejoins",
                    exc_info=level == logging.ERROR,
                    extra={"fields": {"group": self.group, "reason": type(error).__name__}},
                )
                self.on_partitions_revoked(None)
                self._stopping.wait(0.5)

    def _consume(self) -> None:
        consumer = KafkaConsumer(
            **self._kafka,
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
        try:
            consumer.subscribe(list(self._topics), listener=self)
            while not self._stopping.is_set():
                room = UNFINISHED - self.unfinished
                consumer.resume(*consumer.paused()) if room > 0 else consumer.pause(*consumer.assignment())
                batches = consumer.poll(timeout_ms=100 if room < UNFINISHED else 300, max_records=max(room, 1))
                for partition, records in batches.items():
                    self._take(partition, records)
                self._commit(consumer)
                self.lag = self._behind(consumer)
                if batches:  # ten groups that fetch a busy topic event by event would cost more than the events themselves
                    self._stopping.wait(0.02)
            self._drained.wait(5.0)
            self._commit(consumer)
        finally:
            consumer.close(autocommit=False, timeout_ms=1000)

    def _take(self, partition: TopicPartition, records: list[Any]) -> None:
        wanted = [(record, self._prepare(record)) for record in records]
        with self._lock:
            progress = self._progress.setdefault(partition, _Progress(position=records[0].offset))
            progress.unfinished.update(record.offset for record, event in wanted if event)
            progress.position = records[-1].offset + 1
            epoch = self._epoch
        for record, event in wanted:
            if event:
                lane = hash(record.key or record.offset) % len(self._lanes)
                self._lanes[lane].put(_Work(0.0, next(self._numbers), event, (partition, record.offset), epoch))

    def _commit(self, consumer: KafkaConsumer) -> None:
        with self._lock:
            moved = {partition: progress.done for partition, progress in self._progress.items() if progress.done > progress.committed}
        if moved:
            consumer.commit({partition: OffsetAndMetadata(offset, "", -1) for partition, offset in moved.items()}, timeout_ms=5000)
            with self._lock:
                for partition, offset in moved.items():
                    if partition in self._progress:
                        self._progress[partition].committed = offset

    def _behind(self, consumer: KafkaConsumer) -> int:
        with self._lock:
            done = {partition: progress.done for partition, progress in self._progress.items()}
        return sum(
            max(0, (consumer.highwater(partition) or 0) - offset)
            for partition, offset in done.items()
            if partition in consumer.assignment()
        )

    def _work(self, lane: _Lane) -> None:
        while (work := lane.take()) is not None:
            while work.epoch == self._epoch:
                try:
                    delay = self._handle(work.event, work.attempt)
                except MlaasError:  # the broker is away and the platform stops: nothing is committed
                    delay = 1.0
                if delay is None:
                    self._finish(work)
                    break
                work = _Work(time.monotonic() + delay, work.number, work.event, work.place, work.epoch, work.attempt + 1)
                if not self._ordered:
                    lane.put(work)
                    break
                if self._stopping.wait(delay):
                    return

    def _finish(self, work: _Work) -> None:
        partition, offset = work.place
        with self._lock:
            if work.epoch == self._epoch:
                self._progress[partition].unfinished.discard(offset)


class Dispatcher:
    """One Trigger: hands its events to `subscriber`, and what comes back to the Broker, or the event to the dead letters."""

    def __init__(
        self, trigger: Trigger, subscriber: Subscriber, journal: Journal, broker_topic: str, dead_letters: str | None, target: str
    ) -> None:
        self._trigger, self._subscriber, self._journal = trigger, subscriber, journal
        self._broker_topic, self._dead_letters, self._target = broker_topic, dead_letters, target
        self.delivered = self.retried = self.dead_lettered = 0

    def prepare(self, record: Any) -> Event | None:
        """The event of `record` if the Trigger wants it."""
        event = from_record(record)
        return event if self._trigger.matches(event.attributes) else None

    def handle(self, event: Event, attempt: int) -> float | None:
        """Try once; None when the event is at its end, or the seconds until the next try."""
        answer = self._ask(event)
        if 200 <= answer.status < 300:
            refused = self._reply(answer)
            if refused is None:
                self.delivered += 1
                return None
            answer = refused
        elif self._journal.stopping.is_set():
            return 1.0  # perhaps only because the platform stops; it is delivered again at the next start
        elif is_retryable(answer.status) and attempt < self._trigger.delivery.retry:
            self.retried += 1
            return max(self._trigger.delivery.backoff(attempt), _retry_after(answer, self._trigger.delivery))
        self._bury(event, answer)
        return None

    def _ask(self, event: Event) -> Answer:
        try:
            return self._subscriber(event)
        except Unavailable as error:
            return Answer(503, {"Retry-After": str(error.retry_after)}, error.detail.encode())
        except TooLarge as error:
            return Answer(413, {}, error.detail.encode())
        except Exception as error:  # a defect here must cost this event its tries, not the subscription its worker
            log.exception("delivery.defect", extra={"fields": {"trigger": self._trigger.name, "id": event.attributes["id"]}})
            return Answer(0, {}, type(error).__name__.encode())

    def _reply(self, answer: Answer) -> Answer | None:
        """Append the event in `answer` to the Broker; what was wrong with it, if anything."""
        if not events.is_event(answer.headers):
            return None
        try:
            self._journal.append(self._broker_topic, from_http(answer.headers, answer.body).record())
        except (Malformed, TooLarge) as error:
            return Answer(answer.status, {}, f"the reply was refused: {error.detail}".encode())
        return None

    def _bury(self, event: Event, answer: Answer) -> None:
        log.warning(
            "event.dead_lettered", extra={"fields": {"trigger": self._trigger.name, "id": event.attributes["id"], "status": answer.status}}
        )
        self.dead_lettered += 1
        if self._dead_letters is None:
            return
        reason = b64encode(answer.body[:ERROR_BYTES]).decode()
        letter = event.but(knativeerrordest=self._target, knativeerrorcode=str(answer.status or 503), knativeerrordata=reason)
        try:
            self._journal.append(self._dead_letters, letter.record())
        except TooLarge:  # its attributes still say which event it was
            self._journal.append(self._dead_letters, Event(letter.attributes, b"").record())


def _retry_after(answer: Answer, delivery: Delivery) -> float:
    """Seconds that the subscriber asks to be left alone, bounded."""
    text = {name.lower(): value for name, value in answer.headers.items()}.get("retry-after", "") if answer.status in (429, 503) else ""
    try:
        asked = float(text) if text.isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError):
        return 0.0
    return min(max(asked, 0.0), delivery.retry_after_max)
