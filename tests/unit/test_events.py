"""CloudEvents in and out, over HTTP and over Kafka."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas import events, tracing
from mlaas.errors import Malformed

BINARY = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t", "Content-Type": "application/json"}
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
STRUCTURED = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"a": 1}}


def test_a_type_names_capability_and_state() -> None:
    assert events.event_type("fill_mask", "requested") == "it.infn.mlaas.fill_mask.requested.v1"
    assert events.parse_type("it.infn.mlaas.fill_mask.requested.v1") == ("fill_mask", "requested")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "it.infn.mlaas.classify",
        "it.infn.mlaas.classify.requested.v2",
        "it.infn.mlaas.clasify.requested.v1",
        "xit.infn.mlaas.classify.requested.v1",
        "it.infn.mlaas.classify.requested.v1.more",
    ],
)
def test_any_other_type_is_not_the_platforms(text: str) -> None:
    assert events.parse_type(text) is None


def test_a_reply_to_a_redelivered_request_has_the_same_id_and_another_for_another_state() -> None:
    cause = events.new("classify", {}, id="1")
    ids = [events.reply(cause, "classify", state, {})["id"] for state in ("succeeded", "succeeded", "failed")]
    assert ids[0] == ids[1] != ids[2]


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_two_causes_never_share_a_reply_id(source: str, id: str, other_source: str, other_id: str) -> None:
    same = (source, id) == (other_source, other_id)
    assert (events.derived_id(source, id, "x") == events.derived_id(other_source, other_id, "x")) == same


def test_a_chain_keeps_the_correlation_the_key_and_the_trace_of_its_first_event() -> None:
    first = events.build("t", "/s", {}, id="first", partitionkey="k", traceparent=TRACEPARENT)
    second = events.reply(first, "train", "accepted", {})
    third = events.reply(second, "train", "succeeded", {})
    assert (third["correlationid"], third["causationid"]) == ("first", second["id"])
    assert (third["partitionkey"], third["traceparent"]) == ("k", TRACEPARENT)


def test_an_event_that_is_made_within_a_span_of_its_cause_s_trace_names_that_span_as_its_parent() -> None:
    cause = events.build("t", "/s", {}, traceparent=TRACEPARENT)
    with tracing.span("work", parent=cause["traceparent"]) as span:
        made = events.reply(cause, "train", "succeeded", {})
    assert made["traceparent"] == span.traceparent
    assert made["traceparent"].split("-")[1] == TRACEPARENT.split("-")[1]
    with tracing.span("of another trace"):
        assert events.reply(cause, "train", "succeeded", {})["traceparent"] == TRACEPARENT


def test_a_trace_does_not_change_the_id_of_a_reply() -> None:
    cause = events.new("classify", {}, id="1")
    ids = set()
    for _ in range(2):
        with tracing.span("handled"):
            ids.add(events.reply(cause, "classify", "succeeded", {})["id"])
    assert len(ids) == 1


@pytest.mark.parametrize("structured", [True, False])
def test_the_trace_goes_through_kafka(structured: bool) -> None:
    with tracing.span("client") as span:
        sent = events.new("classify", {})
    headers, key, value = events.to_kafka(sent, structured=structured)
    received = events.from_kafka(dict(headers), key, value)
    assert received["traceparent"] == span.traceparent
    with tracing.span("server", parent=received["traceparent"]) as served:
        answer = events.reply(received, "classify", "succeeded", {})
    assert served.trace_id == span.trace_id
    headers, key, value = events.to_kafka(answer, structured=structured)
    assert events.from_kafka(dict(headers), key, value)["traceparent"] == served.traceparent


def test_binary_and_structured_requests_are_the_same_event() -> None:
    binary = events.from_request(BINARY, b'{"a": 1}')
    structured = events.from_request({"content-type": events.STRUCTURED}, json.dumps(STRUCTURED).encode())
    assert binary.data == structured.data == {"a": 1}
    assert all(binary[name] == structured[name] for name in ("id", "source", "type", "specversion"))


@pytest.mark.parametrize("missing", ["id", "source", "type", "specversion"])
@pytest.mark.parametrize("structured", [True, False])
def test_a_missing_attribute_is_named(missing: str, structured: bool) -> None:
    if structured:
        headers, body = {"content-type": events.STRUCTURED}, json.dumps({k: v for k, v in STRUCTURED.items() if k != missing}).encode()
    else:
        headers, body = {k: v for k, v in BINARY.items() if k != f"ce-{missing}"}, b"{}"
    with pytest.raises(Malformed) as caught:
        events.from_request(headers, body)
    assert caught.value.field == missing


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"not json", b"\xff\xfe", b'{"id": 3, "source": [], "type": {}, "specversion": "1.0"}', b'"text"']
)
def test_a_structured_event_that_is_none_is_malformed_and_nothing_else(body: bytes) -> None:
    with pytest.raises(Malformed):
        events.from_request({"content-type": events.STRUCTURED}, body)


@pytest.mark.parametrize("structured", [True, False])
def test_an_event_survives_kafka(structured: bool) -> None:
    sent = events.build("t", "/s", {"text": "è [MASK]"}, id="1", subject="task", partitionkey="key", traceparent="00-1-2-01")
    headers, key, value = events.to_kafka(sent, structured=structured)
    received = events.from_kafka(dict(headers), key, value)
    assert received.data == sent.data
    assert key == b"key"
    wanted = {name: sent[name] for name in ("id", "source", "type", "subject", "partitionkey", "traceparent", "time")}
    assert {name: received.get(name) for name in wanted} == wanted


def test_an_event_with_text_that_is_not_json_still_survives_kafka() -> None:
    received = events.from_kafka({"ce_specversion": b"1.0", "ce_id": b"1", "ce_source": b"/s", "ce_type": b"t"}, None, b"not json")
    assert received.data in ("not json", b"not json")


@pytest.mark.parametrize("headers", [{}, {"ce_id": b"1"}, {"content-type": events.STRUCTURED.encode()}])
def test_a_kafka_record_that_is_no_event_is_malformed(headers: dict[str, bytes]) -> None:
    with pytest.raises(Malformed):
        events.from_kafka(headers, None, b"whatever")


def test_an_event_survives_a_file() -> None:
    sent = events.reply(events.new("train", {}), "train", "accepted", {"task_id": "1"}, subject="1")
    assert events.to_json(events.from_json(json.loads(json.dumps(events.to_json(sent))))) == events.to_json(sent)


def test_a_kafka_record_nested_beyond_measure_is_malformed() -> None:
    with pytest.raises(Malformed):
        events.from_kafka({"content-type": events.STRUCTURED.encode()}, None, b"[" * 100_000)
