"""Who still lives, judged by one clock that only goes forward."""

from __future__ import annotations

import pytest

from mlaas.heartbeats import Watch
from mlaas.jobs import HEARTBEAT_SECONDS
from mlaas.settings import load
from mlaas.tasks import MAX_ATTEMPTS


class Clock:
    """Seconds that the test lets pass."""

    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> Watch:
    return Watch(60, clock=clock)


def test_what_never_changes_is_stale_after_a_while_and_not_before(watch: Watch, clock: Clock) -> None:
    for _ in range(7):
        assert watch.look({"a": 1}) == set()
        assert watch.undecided
        clock.now += 10
    assert watch.look({"a": 1}) == {"a"}
    assert not watch.undecided


def test_each_change_starts_the_count_again(watch: Watch, clock: Clock) -> None:
    for look in range(40):
        assert watch.look({"a": look // 5}) == set()
        clock.now += 10


def test_a_long_gap_between_two_looks_makes_nothing_stale(watch: Watch, clock: Clock) -> None:
    watch.look({"a": 1})
    clock.now += 3600  # the store was away: the run could not be heard either
    assert watch.look({"a": 1}) == set()
    clock.now += 10
    assert watch.look({"a": 2}) == set()


def test_who_has_changed_once_is_not_in_doubt(watch: Watch, clock: Clock) -> None:
    watch.look({"a": 1, "b": 1})
    clock.now += 5
    watch.look({"a": 2, "b": 1})
    assert watch.undecided
    clock.now += 5
    watch.look({"a": 2, "b": 2})
    assert not watch.undecided


def test_who_has_ended_is_forgotten(watch: Watch, clock: Clock) -> None:
    watch.look({"a": 1})
    watch.look({})
    assert not watch.undecided
    clock.now += 60
    assert watch.look({"a": 1}) == set()


def test_a_dead_run_is_failed_within_a_minute_and_one_that_its_controller_starts_again_is_not() -> None:
    """Between the last heartbeat and the next attempt: Kubernetes' longest back-off for the attempts there are, and a pod's start."""
    stale_after, sweep = load({}).stale_after, load({}).stale_after / 6
    backoffs = [10 * 2**failure for failure in range(MAX_ATTEMPTS - 1)]
    pod_start = 15
    assert stale_after + sweep < 60
    assert stale_after > HEARTBEAT_SECONDS + max(backoffs) + pod_start
