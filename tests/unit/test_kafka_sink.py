"""What stands in for a KafkaSink: which record an event becomes, and what is answered."""

import json

import pytest

from mlaas.errors import Malformed, Unavailable
from mlaas.local.kafka_sink import create_app, main, record

EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t", "Content-Type": "application/json"}


@pytest.fixture
def written():
    return []


@pytest.fixture
def client(written):
    return create_app({"events": "mlaas.events"}, lambda *given: written.append(given)).test_client()


def test_a_binary_event_becomes_a_record_with_its_attributes_as_headers_and_its_partitionkey_as_key(client, written):
    answer = client.post("/events", headers={**EVENT, "Ce-PartitionKey": "task-1"}, data=b'{"a": 1}')
    assert answer.status_code == 202
    ((topic, headers, key, value),) = written
    assert (topic, key, value) == ("mlaas.events", b"task-1", b'{"a": 1}')
    assert dict(headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"1",
        "ce_source": b"/s",
        "ce_type": b"t",
        "ce_partitionkey": b"task-1",
        "content-type": b"application/json",
    }


def test_a_dead_letter_whose_data_are_no_json_is_passed_on_as_it_is_with_its_reason():
    headers, key, value = record({**EVENT, "ce-knativeerrorcode": "400", "ce-knativeerrordata": "YWJj"}, b"\xff\x00 no JSON")
    assert value == b"\xff\x00 no JSON"
    assert key is None
    assert dict(headers)["ce_knativeerrorcode"] == b"400"


def test_an_attribute_that_http_has_percent_encoded_is_decoded():
    headers, _, _ = record({**EVENT, "ce-subject": "citt%C3%A0%20x"}, b"")
    assert dict(headers)["ce_subject"].decode() == "città x"


def test_a_structured_event_becomes_a_binary_record():
    event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "partitionkey": "k", "data": {"a": 1}}
    headers, key, value = record({"content-type": "application/cloudevents+json"}, json.dumps(event).encode())
    assert (dict(headers)["ce_type"], key, json.loads(value)) == (b"t", b"k", {"a": 1})


@pytest.mark.parametrize("missing", ["specversion", "id", "source", "type"])
def test_what_is_no_event_is_refused_and_says_what_is_missing(client, written, missing):
    answer = client.post("/events", headers={name: value for name, value in EVENT.items() if name != f"ce-{missing}"}, data=b"{}")
    assert (answer.status_code, answer.get_json()["field"]) == (400, missing)
    assert not written


def test_a_structured_event_that_cannot_be_read_is_refused():
    with pytest.raises(Malformed):
        record({"content-type": "application/cloudevents+json"}, b"[1]")


def test_a_sink_that_is_not_there_is_named(client):
    answer = client.post("/other", headers=EVENT, data=b"{}")
    assert (answer.status_code, answer.get_json()["remedy"]) == (404, "Post to /events.")


def test_an_event_is_not_acknowledged_while_kafka_is_away():
    def away(*_given):
        raise Unavailable("the event broker is away")

    assert create_app({"events": "t"}, away).test_client().post("/events", headers=EVENT, data=b"{}").status_code == 503


def test_a_body_that_no_topic_takes_is_refused(client, written):
    assert client.post("/events", headers=EVENT, data=b"x" * (4 * 1024**2 + 1)).status_code == 413
    assert not written


def test_a_sink_without_a_topic_is_a_wrong_usage(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["events"])
    assert ended.value.code == 2
    assert "NAME=TOPIC" in capsys.readouterr().err
