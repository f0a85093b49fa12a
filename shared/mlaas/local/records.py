"""One event on its way: as a Kafka record, as an HTTP request, as the JSON of a job's event file.

Data stay the bytes they came as. What is no CloudEvent becomes one the way Knative's KafkaSource does it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cloudevents.http import CloudEvent

from .. import events
from ..errors import Malformed, MlaasError

__all__ = ["Event", "Record", "from_http", "from_record"]

Record = tuple[list[tuple[str, bytes]], bytes | None, bytes]
_STRUCTURED = "application/cloudevents+json"
# Values that a header carries as they are. Others would need percent-encoding, which not every SDK undoes: they go structured.
_PLAIN = re.compile(r"[!#$&-~](?:[ !#$&-~]*[!#$&-~])?")


@dataclass(frozen=True)
class Event:
    """A CloudEvent's attributes, `datacontenttype` and `partitionkey` among them, and its data as bytes."""

    attributes: Mapping[str, str]
    data: bytes

    def record(self, *, structured: bool = False) -> Record:
        """Headers, key and value for Kafka."""
        key = self.attributes.get("partitionkey")
        if structured:
            return [("content-type", _STRUCTURED.encode())], key.encode() if key else None, self.json()
        rest = {name: value for name, value in self.attributes.items() if name not in ("datacontenttype", "partitionkey")}
        content = [("content-type", self.attributes["datacontenttype"].encode())] if "datacontenttype" in self.attributes else []
        return [*content, *((f"ce_{name}", value.encode()) for name, value in rest.items())], key.encode() if key else None, self.data

    def request(self) -> tuple[dict[str, str], bytes]:
        """Headers and body for HTTP: binary mode, or structured where a header cannot carry a value."""
        if not all(_PLAIN.fullmatch(value) for value in self.attributes.values()):
            return {"Content-Type": _STRUCTURED}, self.json()
        headers = {f"ce-{name}": value for name, value in self.attributes.items() if name != "datacontenttype"}
        content = {"Content-Type": self.attributes["datacontenttype"]} if "datacontenttype" in self.attributes else {}
        return {**content, **headers}, self.data

    def json(self) -> bytes:
        """CloudEvents' structured form."""
        document: dict[str, Any] = dict(self.attributes)
        try:
            if self.data:
                document["data"] = json.loads(self.data)
        except (ValueError, RecursionError):
            document["data_base64"] = base64.b64encode(self.data).decode()
        return json.dumps(document, ensure_ascii=False).encode()

    def but(self, **attributes: str) -> Event:
        """The same event with further attributes."""
        return Event({**self.attributes, **attributes}, self.data)


def from_http(headers: Mapping[str, str], body: bytes) -> Event:
    """The event of an HTTP request or answer. Raises Malformed if it is none."""
    headers = {name.lower(): value for name, value in headers.items()}
    binary = not headers.get("content-type", "").startswith(_STRUCTURED)
    try:
        return _event(events.from_request(headers, b"" if binary else body), body if binary else None)
    except (ValueError, RecursionError):  # a body nested beyond measure, a lone surrogate
        raise Malformed("the CloudEvent is malformed", remedy="Send valid JSON in UTF-8.") from None


def from_record(record: Any) -> Event:
    """The event of a Kafka record; never fails."""
    headers = {name.lower(): value or b"" for name, value in record.headers}
    binary = not headers.get("content-type", b"").startswith(_STRUCTURED.encode())
    value = record.value or b""
    try:
        return _event(events.from_kafka(headers, record.key, b"" if binary else value), value if binary else None)
    except (MlaasError, ValueError, RecursionError):
        return _wrapped(record, headers, value)


def _event(event: CloudEvent, data: bytes | None) -> Event:
    attributes: dict[str, str] = {}
    for name, value in event.get_attributes().items():
        if not re.fullmatch("[a-z0-9]+", name) or isinstance(value, dict | list):
            raise Malformed(
                "a CloudEvent's attributes are strings with lowercase alphanumeric names",
                field=name[:50],
                remedy="Rename or remove the attribute.",
            )
        if value is not None:
            attributes[name] = value if isinstance(value, str) else json.dumps(value)
            attributes[name].encode()  # a lone surrogate fails here, as ValueError
    if data is None:
        given, content = event.data, attributes.get("datacontenttype", "")
        if isinstance(given, str) and content.startswith("text/"):
            given = given.encode()
        data = given if isinstance(given, bytes) else b"" if given is None else json.dumps(given, ensure_ascii=False).encode()
        if not isinstance(given, bytes) or content.startswith(_STRUCTURED):
            attributes["datacontenttype"] = "application/json" if not isinstance(given, bytes) else "application/octet-stream"
    return Event(attributes, data)


def _wrapped(record: Any, headers: Mapping[str, bytes], value: bytes) -> Event:
    """What Knative's KafkaSource makes of a record that is no CloudEvent."""
    attributes = {
        "specversion": "1.0",
        "type": events.KAFKA_RECORD,
        "source": f"/apis/v1/namespaces/default/kafkasources/requests#{record.topic}",
        "id": f"partition:{record.partition}/offset:{record.offset}",
        "subject": f"partition:{record.partition}#{record.offset}",
        "time": datetime.fromtimestamp(max(record.timestamp, 0) / 1000, UTC).isoformat().replace("+00:00", "Z"),
    }
    if content := headers.get("content-type", b"").decode("ascii", "ignore").strip():
        attributes["datacontenttype"] = "application/octet-stream" if content.startswith(_STRUCTURED) else content
    if record.key:
        attributes["key"] = attributes["partitionkey"] = record.key.decode("utf-8", "replace")
    for name, text in headers.items():
        if name != "content-type" and (clean := re.sub("[^a-z0-9]", "", name)):
            attributes[f"kafkaheader{clean}"] = text.decode("utf-8", "replace")
    return Event(attributes, value)
