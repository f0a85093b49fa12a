"""Events between Kafka records, HTTP and job files."""

import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas import events
from mlaas.errors import Malformed
from mlaas.local.records import Event, from_http, from_record

REQUIRED = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "time": "2026-01-01T00:00:00Z"}


def record(headers=(), value=b"", key=None):
    return SimpleNamespace(headers=list(headers), value=value, key=key, topic="t", partition=3, offset=7, timestamp=0)


def kafka(event):
    headers, key, value = event.record()
    return record(headers, value, key)


@given(
    st.dictionaries(
        st.from_regex("[a-z0-9]{1,20}", fullmatch=True), st.text(min_size=1).filter(lambda t: t.isascii() or _encodable(t)), max_size=3
    ),
    st.binary(),
)
def test_any_attributes_and_data_pass_kafka_and_http_unchanged(extra, data):
    extra = {name: value for name, value in extra.items() if name not in ("data", "datacontenttype", "dataschema", "time", "subject")}
    event = Event({**extra, **REQUIRED, "datacontenttype": "application/octet-stream"}, data)
    assert from_record(kafka(event)) == event
    headers, body = event.request()
    if headers["Content-Type"] == "application/octet-stream":
        assert all(value.isprintable() and value.isascii() for value in headers.values())
        assert from_http(headers, body) == event
    else:
        assert dict(from_http(headers, body).attributes).items() >= extra.items()


def _encodable(text):
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def test_data_stay_the_bytes_they_came_as():
    headers = [(f"ce_{name}", value.encode()) for name, value in REQUIRED.items()]
    assert from_record(record([*headers, ("content-type", b"application/json")], b'{"a" :  1e2}')).record()[2] == b'{"a" :  1e2}'


def test_the_key_of_a_record_is_the_partition_key_of_its_event():
    assert from_record(kafka(Event({**REQUIRED, "partitionkey": "task-1"}, b""))).record()[1] == b"task-1"


def test_a_structured_record_becomes_the_same_event_as_a_binary_one():
    event = events.build("t", "/s", {"a": [1, "é"]}, id="1", subject="x")
    binary, structured = (
        from_record(record(*(lambda h, k, v: (h, v, k))(*events.to_kafka(event, structured=kind)))) for kind in (False, True)
    )
    assert json.loads(binary.data) == json.loads(structured.data)
    assert {**structured.attributes, "datacontenttype": ""} == {**binary.attributes, "datacontenttype": ""}


def test_numbers_and_booleans_among_attributes_become_their_canonical_strings():
    body = json.dumps({**REQUIRED, "count": 3, "good": True}).encode()
    event = from_http({"Content-Type": "application/cloudevents+json"}, body)
    assert (event.attributes["count"], event.attributes["good"]) == ("3", "true")


def test_structured_text_and_bytes_become_what_they_say():
    for content, member, data in (("text/plain", {"data": "é"}, "é".encode()), ("image/png", {"data_base64": "AAE="}, b"\0\1")):
        body = json.dumps({**REQUIRED, "datacontenttype": content, **member}).encode()
        event = from_http({"Content-Type": "application/cloudevents+json"}, body)
        assert (event.attributes["datacontenttype"], event.data) == (content, data)


@pytest.mark.parametrize(
    "junk",
    [
        record(),
        record(value=None),
        record(value=b"\xff\x00"),
        record([("content-type", b"application/cloudevents+json")], b"{"),
        record([("content-type", b"application/cloudevents+json")], b"[]"),
        record([("content-type", b"application/cloudevents+json")], b"[" * 100_000),
        record([("content-type", b"application/cloudevents+json")], json.dumps({**REQUIRED, "UPPER case": "x"}).encode()),
        record([("content-type", b"application/cloudevents+json")], json.dumps({**REQUIRED, "nested": {}}).encode()),
        record([("content-type", b"application/cloudevents+json")], json.dumps({**REQUIRED, "subject": "\ud800"}).encode()),
        record([("ce_specversion", b"1.0"), ("ce_id", b"\xff")], b"x"),
        record([("ce_specversion", None)], b"x"),
        record([("X-Header", b"\n")], b"x", b"\xff"),
    ],
)
def test_a_record_that_is_no_event_is_wrapped_as_knative_does(junk):
    event = from_record(junk)
    assert event.attributes["type"] == "dev.knative.kafka.event"
    assert event.attributes["id"] == "partition:3/offset:7"
    assert event.data == (junk.value or b"")
    assert from_record(kafka(event)) == event, "what is wrapped can be read again"
    headers, body = event.request()
    assert from_http(headers, body).attributes["id"] == "partition:3/offset:7"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b"{}"),
        ({"ce-id": "1"}, b""),
        ({"Content-Type": "application/cloudevents+json"}, b"[" * 100_000),
        ({"Content-Type": "application/cloudevents+json"}, json.dumps({**REQUIRED, "subject": "\ud800"}).encode()),
        ({f"ce-{name}": value for name, value in REQUIRED.items()} | {"ce-bad_name": "x"}, b""),
    ],
)
def test_an_http_request_that_is_no_event_is_refused(headers, body):
    with pytest.raises(Malformed):
        from_http(headers, body)


def test_a_jobs_event_file_can_be_read_as_an_event():
    event = Event({**REQUIRED, "datacontenttype": "application/json"}, b'{"a": 1}')
    assert events.from_json(json.loads(event.json())).data == {"a": 1}
