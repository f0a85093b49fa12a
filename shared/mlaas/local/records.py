"""The events of Kafka's records. Every Trigger reads all of the Broker's topic: each record is made an event once, not by each of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from cloudevents.http import CloudEvent

from .. import events
from ..errors import Malformed
from .broker import UNWRITABLE

if TYPE_CHECKING:
    from kafka.consumer.fetcher import ConsumerRecord

__all__ = ["Records", "from_record"]

_KEPT, _KEPT_BYTES = 1024, 8192  # so many events, of records that are no larger: 8 MiB


class Records:
    """The events of what consumer groups have read lately. Any number of threads may use it at once; nobody changes an event of it."""

    def __init__(self) -> None:
        self._events: OrderedDict[tuple[str, int, int, int], CloudEvent] = OrderedDict()
        self._lock = threading.Lock()

    def event(self, record: ConsumerRecord) -> CloudEvent:
        """The record's event."""
        place = record.topic, record.partition, record.offset, record.timestamp  # a topic that was made anew counts from 0 again
        if (known := self._events.get(place)) is not None:
            return known
        event = from_record(record)
        if len(record.value or b"") <= _KEPT_BYTES:
            with self._lock:
                self._events[place] = event
                while len(self._events) > _KEPT:
                    self._events.popitem(last=False)
        return event


def from_record(record: Any) -> CloudEvent:
    """The event of a Kafka record; what is none, or could not be written again, is wrapped as Knative's KafkaSource does it."""
    value = record.value or b""
    try:
        event = events.from_kafka(dict(record.headers), record.key, value)
        events.to_kafka(event)
        return event
    except (Malformed, *UNWRITABLE):
        source = f"/apis/v1/namespaces/default/kafkasources/requests#{record.topic}"
        place, content = f"partition:{record.partition}/offset:{record.offset}", "application/octet-stream"
        return CloudEvent({"type": events.KAFKA_RECORD, "source": source, "id": place, "datacontenttype": content}, value)
