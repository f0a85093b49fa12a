"""Kafka as the single-machine runner uses it: its topics, appending with an acknowledgement, and consumers of its groups."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Iterable
from typing import Any

from cloudevents.exceptions import GenericException
from cloudevents.http import CloudEvent
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import AuthorizationError, KafkaError, MessageSizeTooLargeError, RecordListTooLargeError, TopicAlreadyExistsError

from .. import events
from ..errors import InvalidRequest, Malformed, TooLarge, Unavailable
from ..kafka_connection import connecting
from ..settings import Settings

__all__ = ["RECORD_BYTES", "UNWRITABLE", "Broker", "own_kafka"]

RECORD_BYTES = 4 * 1024**2  # room for a request of Kafka's default size and what a dead letter adds to it
FETCH_BYTES = 256 * 1024  # of a partition at once, or one record if that is larger
UNWRITABLE = (GenericException, AttributeError, ValueError, RecursionError)  # what the cloudevents library raises for odd attributes

log = logging.getLogger("mlaas")


class Broker:
    """Kafka as `settings` say, with `topics`; whoever waits for it gives up once `stopping` is set.

    Topics that are missing are made, with the settings' number of partitions. Raises InvalidRequest, Unavailable.
    """

    def __init__(self, settings: Settings, topics: Iterable[str]) -> None:
        self.stopping = threading.Event()
        limits = {"max_block_ms": 5000, "request_timeout_ms": 5000, "delivery_timeout_ms": 10000, "max_request_size": RECORD_BYTES}
        with connecting(settings) as self._kafka:
            self._create(set(topics), settings.kafka_partitions)
            # Without idempotence no outage leaves the producer unusable; whoever waits for each acknowledgement keeps the order.
            self._producer = KafkaProducer(**self._kafka, **limits, acks="all", enable_idempotence=False, metrics_enabled=False)

    def _create(self, topics: set[str], partitions: int) -> None:
        admin = KafkaAdminClient(**self._kafka)
        try:
            settings = {"num_partitions": partitions, "configs": {"max.message.bytes": str(RECORD_BYTES)}}
            if missing := topics - set(admin.list_topics()):
                admin.create_topics(dict.fromkeys(missing, settings), wait_for_metadata=True)
        except TopicAlreadyExistsError:  # another platform was faster
            pass
        except AuthorizationError:
            names = ", ".join(sorted(topics))
            remedy = f"Have them made, each with max.message.bytes={RECORD_BYTES}: {names}."
            raise InvalidRequest("this user may not make topics in Kafka", field="MLAAS_KAFKA_USERNAME", remedy=remedy) from None
        finally:
            admin.close()

    def append(self, topic: str, event: CloudEvent, patience: float = float("inf")) -> None:
        """Append and wait for the acknowledgement, `patience` seconds while Kafka is away. Raises Malformed, TooLarge, Unavailable."""
        try:
            headers, key, value = events.to_kafka(event)
        except UNWRITABLE:
            raise Malformed("the event cannot be written to Kafka", remedy="Send attributes that are strings.") from None
        self.write(topic, headers, key, value, patience)

    def write(self, topic: str, headers: list[tuple[str, bytes]], key: bytes | None, value: bytes, patience: float = float("inf")) -> None:
        """`append`, for an event that is a record already. Raises TooLarge, Unavailable."""
        deadline = time.monotonic() + patience
        while True:
            try:
                self._producer.send(topic, value=value, key=key, headers=headers).get(timeout=15)
                return
            except (MessageSizeTooLargeError, RecordListTooLargeError):
                raise TooLarge("the event is larger than the broker takes", remedy="Send a reference to the data instead.") from None
            except KafkaError as error:
                log.warning("broker.away", extra={"fields": {"topic": topic, "reason": type(error).__name__}})
                if self.stopping.wait(0.5) or time.monotonic() > deadline:
                    raise Unavailable("the event broker is away", remedy="Send the event again in a moment.") from None

    def consumer(self, group: str) -> KafkaConsumer:
        """The one member of `group`, which gets its partitions at once when it comes back after it was killed."""
        offsets = {"enable_auto_commit": False, "auto_offset_reset": "earliest", "max_partition_fetch_bytes": FETCH_BYTES}
        # It is alive while it sends heartbeats: it need not poll while all that it has got waits for a retry.
        alive: dict[str, Any] = {"session_timeout_ms": 6000, "heartbeat_interval_ms": 1000, "max_poll_interval_ms": 24 * 3600 * 1000}
        return KafkaConsumer(**self._kafka, **offsets, **alive, metrics_enabled=False, group_id=group, group_instance_id=f"{group}-mlaas")

    def close(self) -> None:
        """Let go of the connection."""
        self._producer.close(timeout=2)


def own_kafka(settings: Settings, port: int) -> Settings:
    """The settings of a Kafka that the platform starts itself. Raises InvalidRequest if they say that it asks for TLS or a login."""
    if settings.kafka_security != "PLAINTEXT":
        remedy = "Name yours with `mlaas up --kafka HOST:PORT`, or unset MLAAS_KAFKA_SECURITY."
        raise InvalidRequest("the Kafka that `mlaas up` starts is plain", field="MLAAS_KAFKA_SECURITY", remedy=remedy)
    return dataclasses.replace(settings, kafka=f"127.0.0.1:{port}")
