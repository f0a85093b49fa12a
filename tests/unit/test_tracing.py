"""W3C Trace Context: what is taken from outside, what is passed on, what is exported."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas import tracing
from mlaas.tracing import Parent, Span

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def exported() -> Iterator[list[Span]]:
    spans: list[Span] = []
    tracing.export_to(spans.append)
    yield spans
    tracing.export_to(None)


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"cc-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-00-what-the-future-may-bring", False),
    ],
)
def test_a_well_formed_traceparent_is_understood(text: str, sampled: bool) -> None:
    assert tracing.parse(text) == Parent(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "text",
    [
        None,
        7,
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-0g",
        f"00-{TRACE}-{SPAN}-01-more",
        f"cc-{TRACE}-{SPAN}-01.more",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}-{SPAN}-٠١",
        f"cc-{TRACE}-{SPAN}-01-" + "x" * 10_000,
    ],
)
def test_a_malformed_traceparent_starts_a_new_trace(text: object) -> None:
    assert tracing.parse(text) is None
    with tracing.span("work", parent=text) as span:
        assert span.parent is None
        assert span.trace_id != TRACE
        assert tracing.parse(span.traceparent) == Parent(span.trace_id, span.span_id, True)


@given(st.text())
def test_any_text_is_understood_or_refused(text: str) -> None:
    found = tracing.parse(text)
    assert found is None or text[3:35] == found.trace_id


def test_a_span_continues_the_trace_it_is_told_of_and_keeps_the_sender_s_decision_to_record() -> None:
    with tracing.span("work", parent=f"00-{TRACE}-{SPAN}-00") as span:
        assert (span.trace_id, span.parent, span.remote) == (TRACE, Parent(TRACE, SPAN, False), True)
        assert span.traceparent == f"00-{TRACE}-{span.span_id}-00"
        with tracing.span("part") as part:
            assert (part.trace_id, part.parent, part.remote) == (TRACE, Parent(TRACE, span.span_id, False), False)
        assert tracing.current() is span
    assert tracing.current() is None


def test_what_is_sent_carries_the_current_span_only_within_its_own_trace() -> None:
    assert tracing.traceparent() is None
    assert tracing.traceparent("malformed") is None
    assert tracing.traceparent(f"00-{TRACE}-{SPAN}-01") == f"00-{TRACE}-{SPAN}-01"
    with tracing.span("work") as span:
        assert tracing.traceparent() == tracing.traceparent("malformed") == span.traceparent
        assert tracing.traceparent(f"00-{TRACE}-{SPAN}-01") == f"00-{TRACE}-{SPAN}-01"


def test_a_span_adopts_the_parent_that_is_found_inside_what_arrived() -> None:
    with tracing.span("request") as span:
        tracing.adopt(f"00-{TRACE}-{SPAN}-01", otherwise="1" * 32)
        assert (span.trace_id, span.parent) == (TRACE, Parent(TRACE, SPAN, True))
    with tracing.span("request") as span:
        tracing.adopt("malformed", otherwise="1" * 32)
        assert (span.trace_id, span.parent) == ("1" * 32, None)
    with tracing.span("request", parent=f"00-{TRACE}-{SPAN}-01") as span:
        tracing.adopt(None, otherwise="1" * 32)
        assert span.trace_id == TRACE


def test_spans_are_exported_when_they_end_with_their_times_and_the_class_of_their_error(exported: list[Span]) -> None:
    began = time.time_ns()
    with pytest.raises(ValueError, match="secret"), tracing.span("outer", kind="server", attributes={"a": 1}), tracing.span("inner"):
        raise ValueError("secret")
    assert [(one.name, one.kind, one.error) for one in exported] == [("inner", "internal", "ValueError"), ("outer", "server", "ValueError")]
    assert all(began <= one.started <= one.ended <= time.time_ns() for one in exported)
    assert "secret" not in repr(exported)


def test_what_the_sender_does_not_record_is_not_exported(exported: list[Span]) -> None:
    with tracing.span("work", parent=f"00-{TRACE}-{SPAN}-00"), tracing.span("part"):
        tracing.record("past", 1, 2)
    assert exported == []


def test_a_part_that_is_over_is_recorded_as_a_child(exported: list[Span]) -> None:
    tracing.record("nowhere", 1, 2)
    with tracing.span("work") as span:
        tracing.record("past", 5, 3)
    assert (exported[0].name, exported[0].started, exported[0].ended) == ("past", 5, 5)  # a clock was set back
    assert exported[0].parent == Parent(span.trace_id, span.span_id, True)
    assert len(exported) == 2
