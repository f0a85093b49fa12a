"""Requests in flight share batches, get their own rows back, and do not suffer from one another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlaas import batching, callers, metrics
from mlaas.batching import Batcher, Part, Work
from mlaas.callers import Caller
from mlaas.errors import Overloaded, Unavailable

BUDGET = 100
Row = tuple[int, int]  # a number that is the row's own, and how many tokens it has


class BadRow(ValueError):
    """A row is below zero."""


@dataclass
class Graph:
    """Gives each row its own number; a batch waits until `open` is set, and each row below zero fails its whole batch."""

    batches: list[list[Row]] = field(default_factory=list)
    open: threading.Event = field(default_factory=threading.Event)
    began: threading.Event = field(default_factory=threading.Event)
    seconds: float = 0.0

    def __call__(self, rows: list[Row]) -> tuple[list[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
        self.batches.append(rows)
        self.began.set()
        assert self.open.wait(10)
        time.sleep(self.seconds)
        if any(number < 0 for number, _ in rows):
            raise BadRow
        longest = max(length for _, length in rows)
        mask = np.array([[1] * length + [0] * (longest - length) for _, length in rows])
        return [np.array([number for number, _ in rows]), np.array([[number, -number] for number, _ in rows])], mask


def work(graph: Graph, rows: Sequence[Row], key: str = "logits") -> Work[Row]:
    return Work(rows=rows, lengths=[length for _, length in rows], budget=BUDGET, key=key, compute=graph)


@contextmanager
def while_busy(graph: Graph, batcher: Batcher[Row]) -> Iterator[ThreadPoolExecutor]:
    """A pool whose work arrives while a batch is computed; the batch ends with the block, and all work with it."""
    with ThreadPoolExecutor(40) as pool:
        first = pool.submit(batcher.run, work(graph, [(1, 50)], key="first"))
        assert graph.began.wait(10)
        try:
            yield pool
        finally:
            graph.open.set()
        first.result(10)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def waiting(batcher: Batcher[Row], count: int) -> None:
    """Until so many requests wait to be computed."""
    until(lambda: len(batcher._jobs) == count)


def put_together(parts: list[Part], rows: Sequence[Row]) -> None:
    """Every row came back once, with its own outputs and its own mask."""
    assert sorted(index for part in parts for index in part.indices) == list(range(len(rows)))
    for part in parts:
        numbers, pairs = part.values
        for place, index in enumerate(part.indices):
            number, length = rows[index]
            assert (numbers[place], *pairs[place]) == (number, number, -number)
            assert part.mask[place].sum() == length


requests = st.lists(st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, BUDGET)), max_size=8), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(asked=requests, parallel=st.integers(1, 3))
def test_each_request_gets_its_own_rows_back_whatever_it_shared_a_batch_with(asked: list[list[Row]], parallel: int) -> None:
    graph, batcher = Graph(), Batcher[Row](parallel=parallel)
    with while_busy(graph, batcher) as pool:
        found = [pool.submit(batcher.run, work(graph, rows)) for rows in asked]
    for rows, future in zip(asked, found, strict=True):
        put_together(future.result(10), rows)
    assert all(len(batch) == 1 or len(batch) * max(length for _, length in batch) <= BUDGET for batch in graph.batches)
    assert sum(map(len, graph.batches)) == 1 + sum(map(len, asked))


@given(lengths=st.lists(st.integers(1, 60), max_size=40), budget=st.integers(1, 500))
def test_groups_hold_every_row_once_in_order_of_length_and_little_padding(lengths: list[int], budget: int) -> None:
    found = [[lengths[index] for index in group] for group in batching.groups(lengths, budget)]
    assert [length for group in found for length in group] == sorted(lengths)
    for group in found:
        padded = len(group) * max(group)
        assert len(group) == 1 or padded <= budget
        assert padded - sum(group) <= batching.PADDING + sum(group) // 8


def test_requests_that_come_while_a_batch_runs_share_the_next_one() -> None:
    graph, batcher = Graph(), Batcher[Row]()
    before = dict(metrics.BATCH_REQUESTS._sums)
    with while_busy(graph, batcher) as pool:
        for number in range(5):
            pool.submit(batcher.run, work(graph, [(number, 10)]))
        waiting(batcher, 5)
    assert [len(batch) for batch in graph.batches] == [1, 5]
    assert metrics.BATCH_REQUESTS._sums[()] - before.get((), 0.0) == 6


def test_requests_for_other_outputs_and_texts_of_other_lengths_do_not_share_a_batch() -> None:
    graph, batcher = Graph(), Batcher[Row]()
    with while_busy(graph, batcher) as pool:
        for number, (length, key) in enumerate([(2, "logits"), (2, "vector"), (90, "logits")]):
            pool.submit(batcher.run, work(graph, [(number, length)], key))
        waiting(batcher, 3)
    assert sorted(graph.batches[1:]) == [[(0, 2)], [(1, 2)], [(2, 90)]]


def test_a_request_whose_batch_fails_runs_alone_so_that_only_the_bad_one_fails() -> None:
    graph, batcher = Graph(), Batcher[Row]()
    with while_busy(graph, batcher) as pool:
        good = [pool.submit(batcher.run, work(graph, [(number, 10)])) for number in range(3)]
        bad = pool.submit(batcher.run, work(graph, [(-1, 10)]))
        waiting(batcher, 4)
    for number, future in enumerate(good):
        put_together(future.result(10), [(number, 10)])
    with pytest.raises(BadRow):
        bad.result(10)
    assert not batcher._jobs
    put_together(batcher.run(work(graph, [(7, 5)])), [(7, 5)])


def test_the_others_are_answered_when_the_thread_that_runs_their_batch_is_ended() -> None:
    graph, batcher = Graph(), Batcher[Row]()

    def ended(rows: list[Row]) -> Any:
        graph(rows)
        raise SystemExit

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(batcher.run, Work(rows=[(1, 5)], lengths=[5], budget=BUDGET, key="logits", compute=ended))
        assert graph.began.wait(10)
        others = [pool.submit(batcher.run, work(graph, [(number, 5)])) for number in range(2)]
        waiting(batcher, 2)
        graph.open.set()
        for number, future in enumerate(others):
            put_together(future.result(10), [(number, 5)])
        with pytest.raises(SystemExit):
            first.result(10)


def test_requests_share_no_batches_where_that_is_turned_off() -> None:
    graph, batcher = Graph(), Batcher[Row](wait=0)
    with while_busy(graph, batcher) as pool:
        found = [pool.submit(batcher.run, work(graph, [(number, 10)])) for number in range(3)]
        until(lambda: len(graph.batches) == 4)  # while the first still runs
    for number, future in enumerate(found):
        put_together(future.result(10), [(number, 10)])


def test_as_many_batches_run_at_once_as_the_hardware_computes_well_side_by_side() -> None:
    graph, batcher = Graph(), Batcher[Row](parallel=3)
    with while_busy(graph, batcher) as pool:
        found = [pool.submit(batcher.run, work(graph, [(number, 10)])) for number in range(2)]
        until(lambda: len(graph.batches) == 3)  # nobody waits for the first
        found += [pool.submit(batcher.run, work(graph, [(number, 10)])) for number in range(2, 8)]
        waiting(batcher, 6)
    for number, future in enumerate(found):
        put_together(future.result(10), [(number, 10)])
    assert len(graph.batches[3]) == 2  # an even share of six for each of three
    assert sum(map(len, graph.batches)) == 9


def test_a_lone_request_waits_for_nobody() -> None:
    graph, batcher = Graph(), Batcher[Row](wait=5)
    graph.open.set()
    started = time.monotonic()
    with callers.caller(Caller()):
        batcher.run(work(graph, [(1, 5)]))
    assert time.monotonic() - started < 2


def test_a_batch_waits_for_a_request_that_has_come_in_but_for_a_bounded_time() -> None:
    graph, batcher = Graph(), Batcher[Row](wait=0.02)
    graph.open.set()
    with callers.caller(Caller()):  # comes in and asks for no batch
        started = time.monotonic()
        with callers.caller(Caller()):
            batcher.run(work(graph, [(1, 5)]))
        assert time.monotonic() - started >= 0.015


def test_a_batch_that_waits_is_joined_by_what_comes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "READ_SECONDS", 10)  # also on a machine that stands still for a while
    graph, batcher = Graph(), Batcher[Row](wait=5)
    graph.open.set()

    def ask(number: int, ready: threading.Event) -> list[Part]:
        with callers.caller(Caller()):
            arrived.wait(10)
            assert ready.wait(10)
            return batcher.run(work(graph, [(number, 5)]))

    arrived, now, later = threading.Barrier(2), threading.Event(), threading.Event()
    now.set()
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(ask, number, ready) for number, ready in enumerate((now, later))]
        waiting(batcher, 1)
        later.set()
        for number, future in enumerate(found):
            put_together(future.result(10), [(number, 5)])
    assert [len(batch) for batch in graph.batches] == [2]


def asked_by(caller: Caller, batcher: Batcher[Row], graph: Graph) -> list[Part]:
    with callers.caller(caller):
        return batcher.run(work(graph, [(3, 10)]))


def test_a_request_that_would_wait_too_long_is_told_when_to_come_back() -> None:
    graph, batcher = Graph(), Batcher[Row](limit=3)
    batcher._measure(1000, 100)  # 10 tokens a second, and 50 are ahead
    with while_busy(graph, batcher), pytest.raises(Overloaded) as caught:
        asked_by(Caller(), batcher, graph)
    assert caught.value.retry_after == 5
    assert "5 s" in (caught.value.remedy or "")
    put_together(asked_by(Caller(), batcher, graph), [(3, 10)])
    with pytest.raises(Overloaded):
        asked_by(Caller(waited=4), batcher, graph)


def test_work_that_no_caller_waits_for_and_the_rest_of_an_admitted_request_are_not_refused() -> None:
    graph, batcher = Graph(), Batcher[Row](limit=3)
    batcher._measure(1000, 100)
    with while_busy(graph, batcher) as pool:
        found: list[Future[Any]] = [pool.submit(batcher.run, work(graph, [(3, 10)]))]
        found.append(pool.submit(asked_by, Caller(arriving=False), batcher, graph))
        waiting(batcher, 2)
    for future in found:
        put_together(future.result(10), [(3, 10)])


def test_the_pace_is_measured_on_batches_that_are_large_enough_to_tell() -> None:
    batcher = Batcher[Row]()
    batcher._measure(batching.RATE_TOKENS - 1, 100)
    assert batcher._tokens == 0
    for _ in range(50):
        batcher._measure(1000, 0.5)
    assert batcher._tokens / batcher._seconds == pytest.approx(2000)


@pytest.mark.parametrize("why", ["deadline", "gone"])
def test_a_caller_who_left_frees_the_place(why: str) -> None:
    graph, batcher = Graph(), Batcher[Row]()
    left = Caller(deadline=time.monotonic() + 0.05) if why == "deadline" else Caller(gone=lambda: True)
    with while_busy(graph, batcher) as pool:
        future = pool.submit(asked_by, left, batcher, graph)
        with pytest.raises(Unavailable, match="nobody waits"):
            future.result(10)
        assert not batcher._jobs
    assert graph.batches == [[(1, 50)]]


def test_a_caller_who_left_before_their_turn_is_not_computed_for() -> None:
    graph, batcher = Graph(), Batcher[Row]()
    with pytest.raises(Unavailable, match="nobody waits"):
        asked_by(Caller(gone=lambda: True), batcher, graph)
    assert (graph.batches, batcher._jobs, batcher._leaders) == ([], [], 0)


def test_no_thread_is_started_and_none_is_left() -> None:
    graph, batcher = Graph(), Batcher[Row](wait=0.001)
    before = set(threading.enumerate())
    with while_busy(graph, batcher) as pool:
        for number in range(20):
            pool.submit(batcher.run, work(graph, [(number, 10)] * 9))
        waiting(batcher, 20)
        started = {each.name for each in set(threading.enumerate()) - before}
    assert all(name.startswith("ThreadPoolExecutor") for name in started)
    assert set(threading.enumerate()) <= before
    assert batcher._leaders == 0
