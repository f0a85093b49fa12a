"""What Knative's KafkaSource, Broker and Trigger do: events from topics to subscribers, replies back to the Broker's topic.

At least once: an offset is committed only when its event is at its end (its reply durably in the Broker's topic, or
itself in the dead letters), and only as far as every earlier event of the partition is at its end too. Where a Trigger is
`ordered`, and for a KafkaSource, an event that must be tried again holds up what is behind it in its partition, and
nothing in another partition, as with Knative; elsewhere the others overtake it.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any

from cloudevents.http import CloudEvent
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition

from .. import events
from ..errors import InvalidRequest, MlaasError
from ..runtime import problem_response
from .broker import Broker
from .lanes import Lanes
from .manifests import Route
from .records import Records

__all__ = ["Send", "Subscription"]

IN_FLIGHT, IN_FLIGHT_OF_A_PARTITION = 256, 64  # events that are fetched and not at their end, before more are fetched
# kafka-python never gives what is left of a fetch when its partition was paused in the middle of it: take fetches whole.
WHOLE_FETCHES = 10**6
COMMIT_SECONDS, DRAIN_SECONDS, RETRY_AFTER_SECONDS = 0.25, 2.0, 30.0
# A group that has had no event of its own for so long is not busy. It commits what it skipped now and then: to skip it again does no harm.
BUSY_SECONDS, SKIPPED_SECONDS = 2.0, 2.5
WORKING_MS, QUIET_MS = 100, 400  # of a poll: what is in flight is looked after in between
RETRIED = (0, 404, 408, 409, 429)  # and 5xx, as Knative does

log = logging.getLogger("mlaas")
Send = Callable[[CloudEvent], tuple[bytes, int, Mapping[str, str]] | None]  # an answer's body, status (0: none came) and headers


@dataclass
class _Work:
    """An event that was tried `attempt` times and is tried next at `due`, or now in `future`."""

    event: CloudEvent
    attempt: int = 0
    due: float = 0.0
    future: Future[float | None] | None = None


@dataclass
class Subscription:
    """A Route's consumer group: `send` hands an event to its target; None is as good as a 202."""

    route: Route
    send: Send
    broker: Broker
    replies: str  # topics of replies and of dead letters
    letters: str
    workers: int
    url: str
    records: Records = field(default_factory=Records)
    counts: dict[str, int] = field(default_factory=lambda: {"lag": 0, "in_flight": 0, "delivered": 0, "retried": 0, "dead_lettered": 0})

    def run(self) -> None:
        """Consume until the Broker is `stopping`; then wait a moment for what is in flight, and commit."""
        while not self.broker.stopping.is_set():
            try:
                self._consume()
            except Exception:  # whatever it is, the subscription must come back; what is not committed is delivered again
                log.exception("subscription.rejoins", extra={"fields": {"name": self.route.name}})
                self.broker.stopping.wait(0.5)

    def _consume(self) -> None:
        kafka, lanes = self.broker.consumer(self.route.group), Lanes(self.workers, ordered=self.route.ordered)
        works: dict[tuple[TopicPartition, int], _Work] = {}
        positions: dict[TopicPartition, int] = {}
        committed, looked, taken = dict[TopicPartition, OffsetAndMetadata](), 0.0, 0.0
        try:
            kafka.subscribe(list(self.route.topics))
            while not self.broker.stopping.is_set():
                room = self._room(kafka, works)
                batches = kafka.poll(timeout_ms=WORKING_MS if works else QUIET_MS, max_records=room) if room > 0 else {}
                for partition, records in batches.items():
                    positions[partition] = records[-1].offset + 1
                    found = {(partition, record.offset): self.records.event(record) for record in records}
                    works |= {place: _Work(event) for place, event in found.items() if self.route.accepts(event.get_attributes())}
                self._advance(works, lanes)
                now = time.monotonic()
                taken = now if works else taken
                if now > looked + (COMMIT_SECONDS if now < taken + BUSY_SECONDS else SKIPPED_SECONDS):
                    committed, looked = self._commit(kafka, works, positions, committed), now
                if batches or room <= 0:  # groups that fetch a busy topic event by event would cost more than the events
                    self.broker.stopping.wait(_pause(len(works), self.workers, now - taken))
            wait([work.future for work in works.values() if work.future], DRAIN_SECONDS)
            self._advance(works, None)
            self._commit(kafka, works, positions, committed)
        finally:
            lanes.close()
            kafka.close(autocommit=False, timeout_ms=1000)

    def _room(self, kafka: KafkaConsumer, works: Collection[tuple[TopicPartition, int]]) -> int:
        """How many events may be fetched; where order counts, a partition whose first event waits must not take it from the others."""
        if not self.route.ordered:
            return IN_FLIGHT - len(works)
        counted = Counter(partition for partition, _ in works)
        mine, paused = kafka.assignment(), kafka.paused()
        many = {partition for partition in mine if counted[partition] >= IN_FLIGHT_OF_A_PARTITION}
        if many - paused:
            kafka.pause(*(many - paused))
        if paused - many:
            kafka.resume(*(paused - many))
        return WHOLE_FETCHES

    def _advance(self, works: dict[tuple[TopicPartition, int], _Work], lanes: Lanes | None) -> None:
        """Forget what is at its end; begin what is due, if there are still `lanes`."""
        for place, work in list(works.items()):
            if work.future and work.future.done():
                if failed := work.future.exception():  # Kafka is away and the platform stops, or a defect: nothing is lost by trying again
                    log.error("delivery.failed", exc_info=failed, extra={"fields": {"name": self.route.name, "id": work.event["id"]}})
                delay = 1.0 if failed else work.future.result()
                if delay is None:
                    del works[place]
                    continue
                work.attempt, work.due, work.future = work.attempt + 1, time.monotonic() + delay, None
            if lanes and not work.future and work.due <= time.monotonic():
                if self.route.ordered:
                    work.future = lanes.submit(place[0], self._deliver_first, work.event, lanes.ended)
                else:
                    work.future = lanes.submit(None, self._deliver, work.event, work.attempt)
        self.counts["in_flight"] = len(works)

    def _commit(self, kafka: KafkaConsumer, works: Any, positions: Mapping[Any, int], committed: Mapping[Any, Any]) -> dict[Any, Any]:
        """Commit the finished prefix of each partition."""
        mine = {one: position for one, position in positions.items() if one in kafka.assignment()}
        ends = {one: min((offset for where, offset in works if where == one), default=position) for one, position in mine.items()}
        done = {one: OffsetAndMetadata(offset, "", -1) for one, offset in ends.items()}
        if done != committed:
            kafka.commit(done, timeout_ms=5000)
        self.counts["lag"] = sum(max(0, (kafka.highwater(one) or 0) - offset) for one, offset in ends.items())
        return done

    def _deliver_first(self, event: CloudEvent, ended: threading.Event) -> float | None:
        """Try until the event is at its end, and hold up what is behind it; not at its end only when its lane has `ended`."""
        for attempt in itertools.count():
            if ended.is_set() or self.broker.stopping.is_set():
                break
            try:
                delay = self._deliver(event, attempt)
            except Exception:  # a defect, or Kafka is away: nothing is lost by trying again
                log.exception("delivery.failed", extra={"fields": {"name": self.route.name, "id": event["id"]}})
                delay = 1.0
            if delay is None:
                return None
            ended.wait(delay)
        return 1.0

    def _deliver(self, event: CloudEvent, attempt: int) -> float | None:
        """Try once; None when the event is at its end, or the seconds until the next try."""
        try:
            body, status, headers = self.send(event) or (b"", 202, {})
            if 200 <= status < 300:
                if events.is_event(headers):
                    self.broker.append(self.replies, events.from_request(headers, body))
                self.counts["delivered"] += 1
                return None
        except MlaasError as error:
            body, status, headers = problem_response(error)
        if self.broker.stopping.is_set():
            return 1.0  # perhaps it failed only because the platform stops; it is delivered again at the next start
        if (status in RETRIED or status >= 500) and attempt < self.route.retry:
            self.counts["retried"] += 1
            asked = headers.get("Retry-After", "")
            backoff = self.route.delay * (2**attempt if self.route.exponential else attempt + 1)
            return max(backoff, min(float(asked), RETRY_AFTER_SECONDS)) if asked.isdigit() else backoff
        self._bury(event, status or 503, body)
        return None

    def _bury(self, event: CloudEvent, status: int, body: bytes) -> None:
        """Append `event` to the dead letters, with the reason."""
        log.warning("event.dead_lettered", extra={"fields": {"name": self.route.name, "id": event["id"], "status": status}})
        self.counts["dead_lettered"] += 1
        reason = {"dest": f"{self.url}/{self.route.target}", "code": str(status), "data": b64encode(body[:1024]).decode()}
        attributes = {**event.get_attributes(), **{f"knativeerror{name}": text for name, text in reason.items()}}
        try:
            self.broker.append(self.letters, CloudEvent(attributes, event.data))
        except InvalidRequest:  # too large with them, or nested too deep; its attributes still say which event it was
            self.broker.append(self.letters, CloudEvent(attributes, b""))


def _pause(works: int, workers: int, since: float) -> float:
    """Seconds until the next fetch of a group that has so many events in flight, and had the last one `since` seconds ago.

    One that has events of its own gets the next soon, unless it has enough to do; to the others a busy topic is mostly not of interest.
    """
    if since > BUSY_SECONDS:
        return 0.2
    return 0.01 if works < workers else 0.05
