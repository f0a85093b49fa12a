"""Dead letters: events that a broker gave up, with the reason that Knative puts into their attributes."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cloudevents.http import CloudEvent

from . import events, kafka_lag
from .client import EventClient
from .errors import Malformed
from .kafka_lag import DEAD_LETTERS
from .settings import Settings

__all__ = ["Letter", "read"]

_ERROR = "knativeerror"


@dataclass(frozen=True)
class Letter:
    """One death of an event: the event as it was sent, who could not take it, why, and when it was given up (ISO 8601, UTC).

    `reason` has `detail`, the last `status`, and perhaps `field`, `remedy` and `error_id`.

    `key` tells this death from every other, also from the next one of the same event.
    """

    key: str
    event: CloudEvent
    destination: str
    reason: dict[str, Any]
    time: str


def read(settings: Settings) -> list[Letter]:
    """The dead letters that Kafka holds, the oldest of each partition first. Raises InvalidRequest, Unavailable."""
    with EventClient(settings, topic=DEAD_LETTERS) as client:
        return [letter for record in client.held() if (letter := _letter(record))]


def _reason(event: CloudEvent) -> dict[str, Any]:
    """What the last answer said, as far as Knative kept it; `detail` is always there."""
    try:
        problem = json.loads(base64.b64decode(event.get("knativeerrordata") or "", validate=True))
        more = {name: str(problem[name]) for name in ("field", "remedy", "error_id") if name in problem}
    except (ValueError, TypeError):
        more = {}
    return {"detail": kafka_lag.reason(event), "status": str(event.get("knativeerrorcode") or ""), **more}


def _letter(record: Any) -> Letter | None:
    headers: Mapping[str, bytes] = dict(record.headers)
    event = _event(headers, record.key, record.value or b"")
    if event is None:  # nobody but a broker writes here, and it writes events
        return None
    kept = {name: value for name, value in event.get_attributes().items() if not name.startswith(_ERROR)}
    return Letter(
        events.derived_id(event["source"], event["id"], f"{record.partition}:{record.offset}:{record.timestamp}"),
        CloudEvent(kept, event.data),
        str(event.get(f"{_ERROR}dest") or ""),
        _reason(event),
        datetime.fromtimestamp(record.timestamp / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    )


def _event(headers: Mapping[str, bytes], key: bytes | None, value: bytes) -> CloudEvent | None:
    """The event of a record, its data as bytes where they cannot be read."""
    for content, data in ((value, None), (b"", value)):
        try:
            event = events.from_kafka(headers, key, content)
        except Malformed:
            continue
        if data:
            event.data = data
        return event
    return None
