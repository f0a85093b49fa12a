"""Where a request's time goes."""

import time

import pytest

from mlaas import timing


def test_a_span_adds_its_seconds_to_the_recording_it_runs_in():
    with timing.record() as spans:
        for _ in range(2):
            with timing.span("infer"):
                time.sleep(0.01)
    assert set(spans) == {"infer"}
    assert 0.02 <= spans["infer"] < 1


def test_a_span_outside_a_recording_leaves_no_trace():
    with timing.span("infer"):
        pass
    with timing.record() as spans:
        pass
    assert spans == {}


def test_a_span_inside_one_of_the_same_name_is_not_counted_twice():
    with timing.record() as spans:
        started = time.perf_counter()
        with timing.span("load"), timing.span("load"):
            time.sleep(0.01)
        elapsed = time.perf_counter() - started
    assert spans["load"] <= elapsed


def test_spans_of_two_recordings_do_not_mix():
    with timing.record() as outer:
        with timing.record() as inner, timing.span("tokenize"):
            pass
        with timing.span("infer"):
            pass
    assert (set(outer), set(inner)) == ({"infer"}, {"tokenize"})


def test_a_span_that_fails_is_counted_and_counted_again_afterwards():
    with timing.record() as spans:
        with pytest.raises(ValueError, match="no"), timing.span("load"):
            raise ValueError("no")
        first = spans["load"]
        with timing.span("load"):
            time.sleep(0.001)
    assert spans["load"] > first > 0


def test_the_server_timing_header_names_each_span_with_its_milliseconds():
    assert timing.server_timing({"load": 0.0123, "tokenize": 0.0004, "infer": 1.0}) == "load;dur=12.3, tokenize;dur=0.4, infer;dur=1000.0"
    assert timing.server_timing({}) == ""
