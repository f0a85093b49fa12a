"""A consumer group whose events are worked on several at once and whose offsets follow the slowest.

At least once: an offset is committed only when its event is at its end, and only as far as every earlier event of the
partition is at its end too.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..errors import MlaasError
from .broker import ConsumerRebalanceListener, KafkaConsumer, KafkaError, OffsetAndMetadata, TopicPartition
from .records import Event

__all__ = ["Handler", "Subscription"]

UNFINISHED = 256  # events that are fetched and not yet at their end
COMMIT_SECONDS = 0.25

log = logging.getLogger("mlaas")


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


Connect = Callable[[str], KafkaConsumer]


class Handler(Protocol):
    """What becomes of a subscription's records."""

    def prepare(self, record: Any) -> Event | None:
        """The event of a Kafka record, None if it is not wanted; never fails."""

    def handle(self, event: Event, attempt: int) -> float | None:
        """Bring the event to its end and return None, or the seconds to wait before the next attempt."""


class Subscription(ConsumerRebalanceListener):  # type: ignore[misc]
    """A consumer group that hands the events of `topics` to `handler`, `workers` at once; `connect(group)` makes its consumer.

    `ordered` keeps events of one key in order, also across attempts; otherwise one that waits holds up no other.
    """

    def __init__(self, handler: Handler, connect: Connect, group: str, topics: tuple[str, ...], *, workers: int, ordered: bool) -> None:
        self.group, self._topics, self._handler, self._connect, self._ordered = group, topics, handler, connect, ordered
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
        kafka = self._connect(self.group)
        try:
            kafka.subscribe(list(self._topics), listener=self)
            committed = 0.0
            while not self._stopping.is_set():
                room = UNFINISHED - self.unfinished
                kafka.resume(*kafka.paused()) if room > 0 else kafka.pause(*kafka.assignment())
                batches = kafka.poll(timeout_ms=250, max_records=max(room, 1))
                for partition, records in batches.items():
                    self._take(partition, records)
                if time.monotonic() - committed > COMMIT_SECONDS:
                    self._commit(kafka)
                    self.lag, committed = self._behind(kafka), time.monotonic()
                if batches:  # ten groups that fetch a busy topic event by event would cost more than the events themselves
                    self._stopping.wait(0.05)
            self._drained.wait(5.0)
            self._commit(kafka)
        finally:
            kafka.close(autocommit=False, timeout_ms=1000)

    def _take(self, partition: TopicPartition, records: list[Any]) -> None:
        wanted = [(record, self._handler.prepare(record)) for record in records]
        with self._lock:
            progress = self._progress.setdefault(partition, _Progress(position=records[0].offset))
            progress.unfinished.update(record.offset for record, event in wanted if event)
            progress.position = records[-1].offset + 1
            epoch = self._epoch
        for record, event in wanted:
            if event:
                lane = hash(record.key or record.offset) % len(self._lanes)
                self._lanes[lane].put(_Work(0.0, next(self._numbers), event, (partition, record.offset), epoch))

    def _commit(self, kafka: KafkaConsumer) -> None:
        with self._lock:
            moved = {partition: progress.done for partition, progress in self._progress.items() if progress.done > progress.committed}
        if moved:
            kafka.commit({partition: OffsetAndMetadata(offset, "", -1) for partition, offset in moved.items()}, timeout_ms=5000)
            with self._lock:
                for partition, offset in moved.items():
                    if partition in self._progress:
                        self._progress[partition].committed = offset

    def _behind(self, kafka: KafkaConsumer) -> int:
        with self._lock:
            done = {partition: progress.done for partition, progress in self._progress.items()}
        return sum(
            max(0, (kafka.highwater(partition) or 0) - offset) for partition, offset in done.items() if partition in kafka.assignment()
        )

    def _work(self, lane: _Lane) -> None:
        while (work := lane.take()) is not None:
            while work.epoch == self._epoch:
                try:
                    delay = self._handler.handle(work.event, work.attempt)
                except MlaasError:  # the broker is away and the platform stops: nothing is committed
                    delay = 1.0
                except Exception:  # a defect must neither end the worker nor commit the event
                    log.exception("subscription.defect", extra={"fields": {"group": self.group}})
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
