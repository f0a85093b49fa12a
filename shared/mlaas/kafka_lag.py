"""What waits in Kafka: the lag of the platform's consumer groups, and the dead letters. Asked of Kafka itself, so also on a cluster."""

from __future__ import annotations

import base64
import json
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cloudevents.http import CloudEvent

from . import events
from .errors import Malformed, Unavailable
from .kafka_connection import connecting
from .settings import Settings

__all__ = ["DEAD_LETTERS", "DeadLetters", "Lag", "Waiting", "reason", "waiting"]

DEAD_LETTERS = "mlaas.dead-letters"
# The groups that consume the platform's events, and the topics that hold them: on a cluster as Knative names them, with the
# namespace, on one machine without. An institute's Kafka has other groups and topics as well.
_GROUPS = ("mlaas-", "knative-trigger-")
_TOPIC = re.compile(r"mlaas\..*|knative-broker-(.*-)?mlaas")
_PATIENCE_MS, _READ_SECONDS = 3000, 5.0  # who looks will look again


@dataclass(frozen=True)
class Lag:
    """How many records of `topic` the consumer group has still to bring to their end."""

    group: str
    topic: str
    partitions: int
    lag: int


@dataclass(frozen=True)
class DeadLetters:
    """How many records the topic of dead letters holds, and the newest of them; `exists` is whether there is such a topic."""

    exists: bool
    count: int
    newest: CloudEvent | None = None


@dataclass(frozen=True)
class Waiting:
    """What waits: each group's lag, and the dead letters."""

    lags: tuple[Lag, ...]
    dead_letters: DeadLetters


def reason(letter: CloudEvent) -> str:
    """Why an event is among the dead letters: Knative keeps the beginning of the answer's body in base64."""
    data = str(letter.get("knativeerrordata") or "")
    try:
        return str(json.loads(base64.b64decode(data, validate=True).decode(errors="replace"))["detail"])
    except (ValueError, KeyError, TypeError):
        return data


def waiting(settings: Settings, *, newest: bool = False) -> Waiting:
    """The lags and the dead letters; `newest` has the newest letter read. Raises InvalidRequest, Unavailable."""
    with _admin(settings) as admin:
        groups = [one["group_id"] for one in admin.list_groups() if one["group_id"].startswith(_GROUPS)]
        committed = {group: _of_the_platform(admin.list_group_offsets(group)[group]) for group in groups}
        topics = {place.topic for offsets in committed.values() for place in offsets} | {DEAD_LETTERS}
        found = _partitions(admin, topics)
        first, end = (_offsets(admin, found, which) for which in ("EARLIEST", "LATEST"))
    lags = tuple(sorted(_lags(committed, first, end), key=lambda one: (one.topic, one.group)))
    letters = {place: (first[place], end[place]) for place in end if place.topic == DEAD_LETTERS}
    count = sum(last - oldest for oldest, last in letters.values())
    letter = _newest(settings, {place: last for place, (oldest, last) in letters.items() if last > oldest}) if newest and count else None
    return Waiting(lags, DeadLetters(bool(letters), count, letter))


@contextmanager
def _admin(settings: Settings) -> Iterator[Any]:
    from kafka import KafkaAdminClient
    from kafka.errors import AuthorizationError, KafkaError

    with connecting(settings) as options:
        admin = KafkaAdminClient(**{**options, "bootstrap_timeout_ms": _PATIENCE_MS}, request_timeout_ms=10_000)
    try:
        yield admin
    except AuthorizationError:
        remedy = "Let it describe the groups mlaas-* and knative-trigger-*, and the topics mlaas.* and knative-broker-*."
        raise Unavailable("Kafka does not show this user what waits", field="MLAAS_KAFKA_USERNAME", remedy=remedy) from None
    except KafkaError:
        raise Unavailable("Kafka does not say what waits", field="MLAAS_KAFKA", remedy="Ask again in a moment.") from None
    finally:
        admin.close()


def _of_the_platform(offsets: Mapping[Any, Any]) -> dict[Any, int]:
    """Committed offset of each partition; of a group with a platform's name only what it consumes of the platform's topics."""
    return {place: one.offset for place, one in offsets.items() if _TOPIC.fullmatch(place.topic)}


def _partitions(admin: Any, topics: set[str]) -> list[Any]:
    from kafka import TopicPartition

    described = admin.describe_topics(sorted(topics & set(admin.list_topics())))
    return [TopicPartition(topic["name"], one["partition_index"]) for topic in described for one in topic["partitions"]]


def _offsets(admin: Any, partitions: list[Any], which: str) -> dict[Any, int]:
    from kafka.admin import OffsetSpec

    if not partitions:
        return {}
    return {place: one.offset for place, one in admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec[which])).items()}


def _lags(committed: Mapping[str, Mapping[Any, int]], first: Mapping[Any, int], end: Mapping[Any, int]) -> Iterator[Lag]:
    """A partition that a group has committed nothing of waits from its first record on."""
    of_topic = defaultdict(list)
    for place in end:
        of_topic[place.topic].append(place)
    for group, offsets in committed.items():
        for topic in sorted({place.topic for place in offsets} & set(of_topic)):
            places = of_topic[topic]
            waits = [end[place] - max(offsets.get(place, first[place]), first[place]) for place in places]
            yield Lag(group, topic, len(places), sum(max(0, one) for one in waits))


def _newest(settings: Settings, ends: Mapping[Any, int]) -> CloudEvent | None:
    """The newest of the last records of the partitions; what cannot be read as an event is none."""
    from kafka import KafkaConsumer

    with connecting(settings) as options:
        consumer = KafkaConsumer(**options, enable_auto_commit=False, fetch_max_wait_ms=100, max_partition_fetch_bytes=8 * 1024**2)
        try:
            consumer.assign(list(ends))
            for place, end in ends.items():
                consumer.seek(place, end - 1)
            found: list[Any] = []
            deadline = time.monotonic() + _READ_SECONDS
            while len({one.partition for one in found}) < len(ends) and time.monotonic() < deadline:
                found += [record for records in consumer.poll(timeout_ms=200).values() for record in records]
        finally:
            consumer.close()
    return _event(max(found, key=lambda one: one.timestamp)) if found else None


def _event(record: Any) -> CloudEvent | None:
    try:
        return events.from_kafka(dict(record.headers), record.key, record.value or b"")
    except Malformed:
        return None
