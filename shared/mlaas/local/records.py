"""Events on their way, their data as the bytes they came as: from Kafka records and HTTP, to HTTP and a job's event file."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from cloudevents.conversion import to_binary
from cloudevents.http import CloudEvent

from .. import events
from ..errors import Malformed

__all__ = ["from_http", "from_record", "to_http", "to_json"]

_PLAIN = re.compile(r"[!#$&-~]+( +[!#$&-~]+)*")  # without what a header would have to encode, which not every SDK undoes


def from_http(headers: Mapping[str, str], body: bytes) -> CloudEvent:
    """The event of an HTTP request or answer, with attributes that Kafka's headers can carry. Raises Malformed if it is none."""
    headers = {name.lower(): value for name, value in headers.items()}
    structured = headers.get("content-type", "").startswith(events.STRUCTURED)
    event = events.from_request(headers, body if structured else b"")
    attributes = {"datacontenttype": "application/json", **{name: value for name, value in event.get_attributes().items() if value}}
    if structured and not isinstance(event.data, bytes):
        body, attributes["datacontenttype"] = json.dumps(event.data).encode(), "application/json"
    for name, value in attributes.items():
        if not (re.fullmatch("[a-z0-9]+", name) and isinstance(value, str) and re.fullmatch(r"[^\ud800-\udfff]+", value)):
            raise Malformed("a CloudEvent's attributes are strings with lowercase names", field=name[:50], remedy="Rename or remove it.")
    return CloudEvent(attributes, event.data if structured and isinstance(event.data, bytes) else body)


def from_record(record: Any) -> CloudEvent:
    """The event of a Kafka record; what is none is wrapped as Knative's KafkaSource does it."""
    value, key = record.value or b"", {"ce-partitionkey": record.key} if record.key else {}
    try:
        headers = {name.replace("_", "-", 1): text.decode() for name, text in {**dict(record.headers), **key}.items() if text is not None}
        return from_http(headers, value)
    except (Malformed, UnicodeDecodeError):
        source = f"/apis/v1/namespaces/default/kafkasources/requests#{record.topic}"
        place, content = f"partition:{record.partition}/offset:{record.offset}", "application/octet-stream"
        return CloudEvent({"type": events.KAFKA_RECORD, "source": source, "id": place, "datacontenttype": content}, value)


def to_http(event: CloudEvent) -> tuple[dict[str, str], bytes]:
    """Headers and body: binary mode, or structured where a header cannot carry an attribute."""
    if not all(_PLAIN.fullmatch(value) for value in event.get_attributes().values()):
        return {"content-type": events.STRUCTURED}, to_json(event)
    headers, body = to_binary(event, data_marshaller=bytes)
    return dict(headers), body


def to_json(event: CloudEvent) -> bytes:
    """CloudEvents' structured form."""
    try:
        return json.dumps({**event.get_attributes(), "data": json.loads(event.data)}).encode()
    except (ValueError, RecursionError):  # no JSON, or nested beyond measure
        return json.dumps({**event.get_attributes(), "data_base64": b64encode(event.data).decode()}).encode()
