"""CloudEvents of the platform: their types, how they are built, parsed and answered, over HTTP and over Kafka.

A type is `it.infn.mlaas.<capability>.<state>.v1`. `subject` is the task or request id, `causationid` the id of the
event that caused this one, `correlationid` that of the first of the chain, `partitionkey` keeps one task's events in
order and `traceparent` carries the W3C trace. The id of a reply is derived from its cause, so that a redelivered
request gives the same reply.
"""

from __future__ import annotations

import json
import re
import uuid
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cloudevents.exceptions import GenericException
from pydantic_core import to_json as to_json_bytes  # ten times as fast as json.dumps where there are many numbers

from . import tracing
from .errors import Malformed

if TYPE_CHECKING:  # the functions below import what they need of it: a cold start that answers plain JSON needs nothing
    from cloudevents.http import CloudEvent

__all__ = [
    "CAPABILITIES",
    "HTTP_SOURCE",
    "STATES",
    "build",
    "derived_id",
    "event_type",
    "from_json",
    "from_kafka",
    "from_request",
    "is_event",
    "new",
    "parse_type",
    "reply",
    "source",
    "span_attributes",
    "to_http",
    "to_json",
    "to_kafka",
]

PREFIX = "it.infn.mlaas"
CAPABILITIES = ("classify", "fill_mask", "ner", "answer", "embed", "generate", "search", "index", "train", "model")
STATES = ("requested", "accepted", "progressed", "succeeded", "failed", "cancelled")
HTTP_SOURCE = "/mlaas/http"  # the source of the events that requests over HTTP stand for
KAFKA_RECORD = "dev.knative.kafka.event"  # the type Knative's KafkaSource gives to a record that is no CloudEvent
STRUCTURED = "application/cloudevents+json"
_IDS = uuid.UUID("6f0d9f5e-6d1c-5b0a-9a53-0f6c1c1c4d0a")
# What the cloudevents library raises, by itself or from below, for something that is no event.
_UNREADABLE = (GenericException, ValueError, TypeError, AttributeError, KeyError, RecursionError)
_PLAIN = re.compile(r"[!#$&-~]+( +[!#$&-~]+)*")  # without what a header would have to encode, which not every SDK undoes
_REQUIRED = ("specversion", "id", "source", "type")


def event_type(capability: str, state: str) -> str:
    """The type of `capability`'s event for `state`."""
    return f"{PREFIX}.{capability}.{state}.v1"


def parse_type(text: str) -> tuple[str, str] | None:
    """Capability and state of an event type, None for a type that is not the platform's."""
    prefix, _, rest = text.partition(f"{PREFIX}.")
    parts = rest.split(".")
    known = not prefix and len(parts) == 3 and parts[0] in CAPABILITIES and parts[1] in STATES and parts[2] == "v1"
    return (parts[0], parts[1]) if known else None


def source(capability: str) -> str:
    """The `source` of events that `capability` makes."""
    return f"/mlaas/{capability}"


def derived_id(cause_source: str, cause_id: str, *what: str) -> str:
    """An id that is the same each time the same cause has the same outcome."""
    return str(uuid.uuid5(_IDS, json.dumps([cause_source, cause_id, *what])))


def build(type: str, source: str, data: Any, *, id: str | None = None, subject: str | None = None, **extensions: str | None) -> CloudEvent:
    """An event with JSON `data`; an extension that is None is left out."""
    from cloudevents.http import CloudEvent

    attributes: dict[str, str] = {
        "type": type,
        "source": source,
        "id": id or str(uuid.uuid4()),
        "time": _now(),
        "datacontenttype": "application/json",
    }
    optional = {"subject": subject, **extensions}
    attributes.update({name: value for name, value in optional.items() if value is not None})
    return CloudEvent(attributes, data)


def new(capability: str, data: Any, *, source: str = "/mlaas/client", id: str | None = None, key: str | None = None) -> CloudEvent:
    """A request for `capability`, as a client sends it."""
    return build(event_type(capability, "requested"), source, data, id=id, partitionkey=key, traceparent=tracing.traceparent())


def reply(cause: CloudEvent, capability: str, state: str, data: Any, *, subject: str | None = None, **extensions: str | None) -> CloudEvent:
    """The event that answers `cause`: same correlation and partition key, an id derived from `cause`, and the trace of `cause`.

    Its `traceparent` names the current span, in which it is made, so that what it causes is seen below that.
    """
    return build(
        event_type(capability, state),
        source(capability),
        data,
        id=derived_id(cause["source"], cause["id"], capability, state),
        subject=subject or cause.get("subject") or cause["id"],
        causationid=cause["id"],
        correlationid=cause.get("correlationid") or cause["id"],
        partitionkey=cause.get("partitionkey") or subject,
        traceparent=tracing.traceparent(cause.get("traceparent")),
        **extensions,
    )


def span_attributes(event: CloudEvent) -> dict[str, str]:
    """`event` as OpenTelemetry's semantic conventions for CloudEvents name its attributes."""
    names = {"id": "id", "source": "source", "type": "type", "specversion": "spec_version", "subject": "subject"}
    return {f"cloudevents.event_{name}": event[attribute] for attribute, name in names.items() if event.get(attribute)}


def is_event(headers: Mapping[str, str]) -> bool:
    """Whether an HTTP request says that it carries a CloudEvent, well formed or not."""
    lowered = {name.lower(): value for name, value in headers.items()}
    return lowered.get("content-type", "").startswith(STRUCTURED) or any(name.startswith("ce-") for name in lowered)


def from_request(headers: Mapping[str, str], body: bytes) -> CloudEvent:
    """The CloudEvent of an HTTP request, structured or binary. Raises Malformed naming the missing attribute."""
    from cloudevents.http import from_http

    try:
        event = from_http({name.lower(): value for name, value in headers.items()}, body)
    except _UNREADABLE:
        raise Malformed(
            "the CloudEvent is malformed or lacks a required attribute",
            field=_missing(headers, body),
            remedy="Send specversion 1.0 with `id`, `source` and `type`, as `ce-` headers or in one JSON object.",
        ) from None
    return _checked(event)


def from_kafka(headers: Mapping[str, bytes], key: bytes | None, value: bytes) -> CloudEvent:
    """The CloudEvent of a Kafka record, structured or binary. Raises Malformed if it is none."""
    from cloudevents.kafka import KafkaMessage, from_binary, from_structured

    message = KafkaMessage(dict(headers), key, value)
    structured = headers.get("content-type", b"").startswith(STRUCTURED.encode())
    try:
        event = from_structured(message) if structured else from_binary(message, data_unmarshaller=_json_or_text)
    except _UNREADABLE:
        raise Malformed("the Kafka record is not a CloudEvent", remedy="Send `ce_` headers or a structured event.") from None
    if structured or "datacontenttype" not in event.get_attributes():  # not what the record's header says about the whole of it
        event["datacontenttype"] = "application/json"
    if isinstance(key := event.get("partitionkey"), bytes):
        event["partitionkey"] = key.decode("utf-8", "replace")
    return _checked(event)


def to_kafka(event: CloudEvent, *, structured: bool = False) -> tuple[list[tuple[str, bytes]], bytes | None, bytes]:
    """Headers, key and value of the Kafka record for `event`."""
    from cloudevents.http import CloudEvent
    from cloudevents.kafka import to_binary, to_structured

    if "datacontenttype" not in event.get_attributes():  # the library would fail
        event = CloudEvent({**event.get_attributes(), "datacontenttype": "application/json"}, event.data)
    message = to_structured(event) if structured else to_binary(event, data_marshaller=_bytes)
    key = message.key.encode() if isinstance(message.key, str) else message.key
    value = message.value.encode() if isinstance(message.value, str) else message.value
    headers = dict(message.headers)
    if structured:
        headers["content-type"] = STRUCTURED.encode()
    return list(headers.items()), key, value


def to_http(event: CloudEvent) -> tuple[Mapping[str, str], bytes]:
    """Headers and body of an HTTP message: binary mode, or structured where a header cannot carry an attribute."""
    from cloudevents import conversion

    plain = all(_PLAIN.fullmatch(f"{name}{value}") for name, value in event.get_attributes().items())
    headers, body = conversion.to_binary(event, _bytes) if plain else conversion.to_structured(event)
    return headers, body


def to_json(event: CloudEvent) -> dict[str, Any]:
    """`event` as one JSON object, CloudEvents' structured form."""
    if isinstance(event.data, bytes):
        return {**event.get_attributes(), "data_base64": b64encode(event.data).decode()}
    return {**event.get_attributes(), "data": event.data}


def from_json(document: Mapping[str, Any]) -> CloudEvent:
    """The event that `to_json` gave, or that a JobSink wrote. Raises Malformed if it is none."""
    return from_request({"content-type": STRUCTURED}, json.dumps(document).encode())


def _checked(event: CloudEvent) -> CloudEvent:
    for name in _REQUIRED:
        if not isinstance(event.get(name), str) or not event[name]:
            raise Malformed(f"the CloudEvent's `{name}` must be a non-empty string", field=name, remedy=f"Set `{name}`.")
    if event["specversion"] != "1.0":
        raise Malformed("only CloudEvents 1.0 are understood", field="specversion", remedy="Set `specversion` to 1.0.")
    return event


def _missing(headers: Mapping[str, str], body: bytes) -> str | None:
    names = {name.lower() for name in headers}
    if any(name.startswith("ce-") for name in names):
        present = {name.removeprefix("ce-") for name in names}
    else:
        parsed = _json_or_text(body)
        present = set(parsed) if isinstance(parsed, dict) else set()
    return next((name for name in _REQUIRED if name not in present), None)


def _json_or_text(body: bytes | str | None) -> Any:
    try:
        return json.loads(body) if body else None
    except (ValueError, RecursionError):
        return body


def _bytes(data: Any) -> bytes:
    return data if isinstance(data, bytes) else to_json_bytes(data)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
