"""Where a request's time goes."""

import itertools
import time

import pytest

from mlaas import timing, tracing


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


def test_the_first_recording_counts_the_time_since_the_request_was_received():
    with timing.waited_since(time.perf_counter() - 0.5):
        with timing.record() as spans:
            pass
        with timing.record() as later:
            pass
    assert 0.5 <= spans["queue"] < 1
    assert later == {}
    with timing.record() as spans:
        pass
    assert spans == {}


@pytest.fixture
def exported():
    found = []
    tracing.export_to(found.append)
    yield found
    tracing.export_to(None)


def test_a_part_of_a_request_is_a_child_span_and_outside_a_recording_none(exported):
    with tracing.span("request") as request, timing.record(), timing.span("load"), timing.span("load"):
        pass
    assert [(one.name, one.parent and one.parent.span_id) for one in exported] == [("load", request.span_id), ("request", None)]
    with timing.span("infer"):
        pass
    assert len(exported) == 2


def test_the_phases_of_a_job_are_timed_one_after_the_other_and_are_children_of_its_span(exported):
    phases = timing.Phases()
    with tracing.span("job"):
        for name in ("load", "load", "train", "evaluate", "train", ""):
            phases.enter(name)
            time.sleep(0.01)
    assert [one.name for one in exported] == ["load", "train", "evaluate", "train", "job"]
    assert set(phases.seconds) == {"load", "train", "evaluate"}
    assert phases.seconds["load"] >= 0.02
    assert phases.seconds["train"] >= 0.02
    assert all(before.ended == after.started for before, after in itertools.pairwise(exported[:-1]))


def test_a_job_of_very_many_phases_has_a_bounded_trace_and_all_its_seconds(exported):
    phases = timing.Phases()
    with tracing.span("job"):
        for _ in range(timing.PHASE_SPANS):
            phases.enter("train")
            phases.enter("evaluate")
        phases.enter("")
    assert len(exported) == timing.PHASE_SPANS + 1
    assert set(phases.seconds) == {"train", "evaluate"}
