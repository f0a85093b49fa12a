"""Records of every odd kind on a real Kafka, each between two good events of the same partition: neither is held up, nothing vanishes."""

import base64
import gc
import json
import os
from dataclasses import dataclass

import pytest
from kafka import KafkaProducer
from kafka.errors import MessageSizeTooLargeError
from stub_platform import Home, needs_kafka, requests

from mlaas import events
from mlaas.local.broker import RECORD_BYTES
from mlaas.local.kafka_server import free_port
from mlaas.local.platform import Platform
from mlaas.testing.kafka import read

pytestmark = pytest.mark.services

PARTITION = 2
REQUIRED = {"specversion": "1.0", "id": "poison", "source": "/poison", "type": "it.infn.mlaas.fill_mask.requested.v1"}
STRUCTURED = [("content-type", b"application/cloudevents+json")]
DEEP = b"[" * 100_000


class Odd(str):
    """A header's name that is no UTF-8 on the wire, as clients in other languages may send it."""

    def encode(self, *_):
        return b"\xff\xfe\x80"


@dataclass(frozen=True)
class Record:
    value: bytes | None
    headers: list = ()
    key: bytes | None = None


def binary(id, value=b"{}", key=None, further=()):
    """A good event but for what is given."""
    names = {**REQUIRED, "id": id}
    return Record(value, [*((f"ce_{name}", text.encode()) for name, text in names.items()), *further], key)


# What the dead letter says: the answer's status, and whose type it has.
POISON = {
    "text": Record(b"not an event"),
    "garbage": Record(bytes(range(256)) * 8),
    "tombstone": Record(None, key=b"some key"),
    "nothing": Record(b""),
    "three MiB": Record(b"x" * (3 * 1024**2)),
    "nested": Record(DEEP, STRUCTURED),
    "nested data": Record(json.dumps(REQUIRED).encode()[:-1] + b', "data": ' + DEEP + b"}", STRUCTURED),
    "half an event": Record(json.dumps(REQUIRED).encode()[:-9], STRUCTURED),
    "a list": Record(b"[]", STRUCTURED),
    "attribute of another type": Record(json.dumps({**REQUIRED, "subject": {"a": 1}}).encode(), STRUCTURED),
    "attribute that is no UTF-8": Record(b"{}", [*binary("x").headers, ("ce_subject", b"\xff\xfe")]),
    "required attribute is missing": Record(b"{}", binary("x").headers[:-1]),
    "required attribute is empty": Record(b"{}", [*binary("x").headers[:-1], ("ce_type", b"")]),
    "another version": Record(b"{}", [("ce_specversion", b"0.3"), *binary("x").headers[1:]]),
}
# Odd, and an event for all that: answered.
ODD = {
    "a header that is no UTF-8": binary("odd-value", further=[("trace", b"\xff\xfe")]),
    "a header's name that is no UTF-8": binary("odd-name", further=[(Odd("odd"), b"x")]),
    "headers that come twice": binary("twice", further=[("ce_source", b"/poison"), ("other", b"1"), ("other", b"2")]),
    "ten thousand headers": binary("many", further=[(f"x{number}", b"y") for number in range(10_000)]),
    "empty key": binary("empty-key", key=b""),
    "key that is no UTF-8": binary("odd-key", key=b"\xff\x00\xfe"),
}


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    needs_kafka()
    home = Home(tmp_path_factory.mktemp("poison") / "r")
    os.environ["STUB_CALLS"] = str(home.calls_file)
    with Platform(home.settings(), home.folder / "base", port=0, kafka_port=free_port()) as platform:
        yield platform
    gc.collect()
    del os.environ["STUB_CALLS"]


@pytest.fixture
def between(platform):
    """Send a good event, what is given, and another good event to one partition, see both answered; the place of what was given."""

    def send(name, record, compression=None):
        first, last = (events.to_kafka(event) for event in requests(name, 2))
        producer = KafkaProducer(
            bootstrap_servers=platform.bootstrap, acks="all", max_request_size=2 * RECORD_BYTES, linger_ms=50, compression_type=compression
        )
        try:
            sent = [
                producer.send("mlaas.requests", value=value, key=key, headers=list(headers), partition=PARTITION)
                for headers, key, value in (first, (record.headers, record.key, record.value), last)
            ]
            places = [one.get(timeout=20) for one in sent]
            assert {place.partition for place in places} == {PARTITION}
        finally:
            producer.close(timeout=5)
        wanted = {f"{name}-0", f"{name}-1"}
        read(platform.bootstrap, "mlaas.events", lambda found: wanted <= {event["causationid"] for event in found})
        return f"partition:{PARTITION}/offset:{places[1].offset}"

    return send


@pytest.mark.parametrize("name", POISON)
def test_poison_ends_in_the_dead_letters_with_its_reason_and_the_events_around_it_are_answered(platform, between, name):
    poison = POISON[name]
    letter = dead_letter(platform, between(name.replace(" ", "-"), poison))
    assert letter["type"] == "dev.knative.kafka.event"
    assert letter["knativeerrorcode"] == "400"
    assert base64.b64decode(letter["knativeerrordata"])
    assert written(letter.data) == (poison.value or b"")


@pytest.mark.parametrize("name", ODD)
def test_an_odd_record_that_is_an_event_is_answered_like_those_around_it(platform, between, name):
    between(name.replace(" ", "-"), ODD[name])
    id = dict(ODD[name].headers)["ce_id"].decode()
    (reply,) = [event for event in read(platform.bootstrap, "mlaas.events", answers(id)) if event["causationid"] == id]
    assert reply["id"] == events.derived_id("/poison", id, "classify", "succeeded")


def test_an_event_that_no_http_server_takes_is_dead_lettered(platform, between):
    between("attributes", binary("attributes", further=[(f"ce_x{number}", b"y") for number in range(2000)]))
    assert dead_letter(platform, "attributes")["knativeerrorcode"] == "431"


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_batches_are_read_whatever_their_producer_chose(platform, between, compression):
    between(compression, binary(f"in-{compression}", b'{"text": "' + b"a" * 5000 + b'"}'), compression)
    read(platform.bootstrap, "mlaas.events", answers(f"in-{compression}"))


def test_a_record_that_is_larger_than_the_topic_takes_is_refused_by_kafka_itself(platform, between):
    with pytest.raises(MessageSizeTooLargeError):
        between("huge", Record(b"x" * (RECORD_BYTES + 1)))


def dead_letter(platform, id):
    found = read(platform.bootstrap, "mlaas.dead-letters", lambda found: any(event["id"] == id for event in found))
    (letter,) = [event for event in found if event["id"] == id]
    return letter


def answers(id):
    return lambda found: any(event["causationid"] == id for event in found)


def written(data):
    """The bytes of a letter's data: what is JSON was parsed on the way."""
    return data if isinstance(data, bytes) else b"" if data is None else json.dumps(data).encode()
