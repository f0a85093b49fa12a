"""Requests in flight for one model share its batches, and too many are told to come back.

There is no thread of its own: of the threads whose requests wait, the one that waits longest runs the next batch, for itself and
for the others, until its own rows are done; then the next one does. As many run at once as the hardware computes well side by
side. What arrives meanwhile is in the next batches, so requests are merged as far as they come faster than they are answered. A
batch that fails is run again by each of its requests alone, so that only those fail whose own rows are at fault.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NoReturn, TypeVar

from . import callers, metrics
from .errors import Overloaded, Unavailable

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Batcher", "Part", "Work", "grouped", "groups"]

PADDING = 16  # tokens of padding that cost less than another call of the graph: on a CPU little, on a GPU much more
LOOK_SECONDS = 0.2  # between two looks whether a waiting caller is still there
RATE_TOKENS = 256  # a smaller batch says more about the cost of a call than about the pace
RATE_KEPT = 0.8  # how much of the measured pace outlives a batch

T = TypeVar("T")
log = logging.getLogger("mlaas")


class Part(NamedTuple):
    """Which rows of a request are in it (b indices), the graph's outputs (first axis b) and the attention mask (b, length)."""

    indices: list[int]
    values: list[NDArray[Any]]
    mask: NDArray[Any]


Answer = tuple[list["NDArray[Any]"], "NDArray[Any]"]


@dataclass(frozen=True, kw_only=True)
class Work(Generic[T]):
    """Rows of one request, with their `lengths` in tokens; `budget` tokens at most are in a batch, padding included.

    `compute` gives the outputs and the attention mask of rows; works of one `key` may share a batch.
    """

    rows: Sequence[T]
    lengths: Sequence[int]
    budget: int
    key: Hashable
    compute: Callable[[list[T]], Answer]


@dataclass(eq=False)
class _Job(Generic[T]):
    """Rows are `pending`, then in `running` batches, then in `parts`, or in `failed` for their request to run them alone."""

    work: Work[T]
    caller: callers.Caller | None
    pending: list[int]
    since: float = field(default_factory=time.perf_counter)
    running: int = 0
    parts: list[Part] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    leads: bool = False
    woken: threading.Event = field(default_factory=threading.Event)

    @property
    def tokens(self) -> int:
        return sum(self.work.lengths[index] for index in self.pending)

    @property
    def left(self) -> bool:
        return self.caller is not None and self.caller.left()


Batch = list[tuple[_Job[T], int]]


class Batcher(Generic[T]):
    """The batches of one model.

    `wait` (seconds) is how long a batch may be held for requests that have come in and are still being read; none is held
    where there are none. With a `wait` of 0 requests share no batches. A request that would wait longer than `limit` (seconds), at
    the pace that was measured, is refused. `parallel` batches are computed at once,
    with so much `padding` (tokens) as costs less than another call of the graph.
    """

    def __init__(self, *, wait: float = 0.003, limit: float = math.inf, parallel: int = 1, padding: int = PADDING) -> None:
        self.parallel, self.padding = parallel, padding
        self._wait, self._limit = wait, limit
        self._changed = threading.Condition()
        self._jobs: list[_Job[T]] = []  # all that have pending rows, in the order of their arrival
        self._leaders = self._running = 0  # threads that compute batches, and the tokens in those batches
        self._tokens = self._seconds = 0.0  # computed lately; their ratio is the pace

    def run(self, work: Work[T]) -> list[Part]:
        """The outputs of all rows of `work`, each row in one part.

        Raises Overloaded where it would have to wait too long, Unavailable when its caller has left, and what `compute` raises
        for its rows alone.
        """
        by_length = sorted(range(len(work.rows)), key=work.lengths.__getitem__)
        job = _Job(work, callers.current(), by_length)
        if self._wait and by_length:
            self._share(job)
        alone = job.failed or job.pending
        for group in groups([work.lengths[index] for index in alone], work.budget, self.padding):
            indices = [alone[place] for place in group]
            job.parts.append(Part(indices, *work.compute([work.rows[index] for index in indices])))
        return job.parts

    def _share(self, job: _Job[T]) -> None:
        with self._changed:
            self._admit(job)
            self._jobs.append(job)
            self._appoint()
            self._changed.notify_all()
        while True:
            with self._changed:
                if not job.leads:
                    if not job.pending and not job.running:
                        return
                    if job.left:
                        self._leave(job)
            if job.leads:
                self._lead(job)
            else:
                job.woken.wait(LOOK_SECONDS)
                job.woken.clear()

    def _admit(self, job: _Job[T]) -> None:
        """Refuse a request that would wait too long; what is no request, or was admitted once, is never refused."""
        one = job.caller
        if one is None or not one.arriving:
            return
        one.arrived()
        tokens = self._running + self._waiting()
        ahead = tokens * self._seconds / self._tokens if self._tokens else 0.0
        if one.waited + ahead > self._limit:
            metrics.OVERLOADED.add()
            again = max(1, math.ceil(ahead))
            raise Overloaded("too much work is waiting for this model", retry_after=again, remedy=f"Send it again in {again} s.")

    def _appoint(self) -> None:
        """Let those that wait longest compute, as many as may."""
        for each in self._jobs:
            if self._leaders >= self.parallel:
                return
            if not each.leads:
                each.leads = True
                self._leaders += 1
                each.woken.set()

    def _leave(self, job: _Job[T]) -> NoReturn:
        """Give up the place of a request whose answer nobody waits for."""
        if job in self._jobs:
            self._jobs.remove(job)
        raise Unavailable("nobody waits for the answer any more", remedy="Allow more time for it.")

    def _lead(self, job: _Job[T]) -> None:
        try:
            self._gather(job)
            while batch := self._take(job):
                self._compute(job.work, batch)
        finally:
            with self._changed:
                job.leads = False
                self._leaders -= 1
                self._appoint()

    def _gather(self, job: _Job[T]) -> None:
        """Wait for requests that are on their way, for a bounded time and while there is room in the batch."""
        end = time.monotonic() + self._wait
        with self._changed:
            while callers.arriving() and (left := end - time.monotonic()) > 0 and self._waiting() < job.work.budget:
                self._changed.wait(left)

    def _waiting(self) -> int:
        return sum(each.tokens for each in self._jobs)

    def _take(self, job: _Job[T]) -> Batch[T]:
        """The leader's shortest rows and those of others that are about as long, no more than an even share of what waits."""
        with self._changed:
            if job.left:
                self._leave(job)
            if not job.pending:
                return []
            mates = [job, *(each for each in self._jobs if each is not job and each.work.key == job.work.key)]
            share = min(job.work.budget, max(job.tokens, sum(each.tokens for each in mates) // self.parallel))
            rows: Batch[T] = []
            for each in mates:
                if share > 0:
                    rows += [(each, index) for index in each.pending]
                    share -= each.tokens
            first = (job, job.pending[0])
            found = groups([each.work.lengths[index] for each, index in rows], job.work.budget, self.padding)
            batch = next(batch for group in found if first in (batch := [rows[place] for place in group]))
            for each, index in batch:
                each.pending.remove(index)
                each.running += 1
                self._running += each.work.lengths[index]
            self._jobs = [each for each in self._jobs if each.pending]
            self._appoint()
        return batch

    def _compute(self, work: Work[T], batch: Batch[T]) -> None:
        """Compute a batch and give each request its rows; if it fails, each request has to run its rows itself."""
        members = list(dict.fromkeys(each for each, _ in batch))
        started = time.perf_counter()
        for each in members:
            if not each.parts:
                metrics.BATCH_WAIT_SECONDS.observe(started - each.since)
        metrics.BATCH_REQUESTS.observe(len(members))
        answer = None
        try:
            answer = work.compute([each.work.rows[index] for each, index in batch])
            self._measure(sum(each.work.lengths[index] for each, index in batch), time.perf_counter() - started)
        except Exception as error:  # nothing is lost: each of the requests runs its rows again, and raises what they raise
            log.warning("batch.failed", extra={"fields": {"requests": len(members), "error": type(error).__name__}})
        finally:
            for each in members:
                self._give(each, batch, answer, whole=len(members) == 1)

    def _give(self, job: _Job[T], batch: Batch[T], answer: Answer | None, *, whole: bool) -> None:
        places = [place for place, (other, _) in enumerate(batch) if other is job]
        indices = [batch[place][1] for place in places]
        part = None
        if answer is not None:
            values, mask = answer
            part = Part(indices, values, mask) if whole else Part(indices, [each[places] for each in values], mask[places])
        with self._changed:
            if part is None:
                job.failed += indices
            else:
                job.parts.append(part)
            job.running -= len(indices)
            self._running -= sum(job.work.lengths[index] for index in indices)
        job.woken.set()

    def _measure(self, tokens: int, seconds: float) -> None:
        if tokens >= RATE_TOKENS:
            with self._changed:
                self._tokens, self._seconds = RATE_KEPT * self._tokens + tokens, RATE_KEPT * self._seconds + seconds


def groups(lengths: Sequence[int], budget: int, padding: int = PADDING) -> Iterator[list[int]]:
    """Indices of `lengths`, shortest first, in groups whose size times longest length stays within `budget`; a group has one at least.

    A group also ends where a longer row would make its padding more than `padding` tokens and an eighth.
    """

    def fits(rows: int, tokens: int, longer: int) -> bool:
        padded = (rows + 1) * longer
        return padded <= budget and padded - tokens - longer <= padding + tokens // 8

    return grouped(lengths, fits)


def grouped(lengths: Sequence[int], fits: Callable[[int, int, int], bool]) -> Iterator[list[int]]:
    """Indices of `lengths`, shortest first, in groups of one or more.

    `fits` is asked with a group's rows, its tokens and the next length whether that one is still of the group.
    """
    group: list[int] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if group and not fits(len(group), tokens, lengths[index]):
            yield group
            group, tokens = [], 0
        group.append(index)
        tokens += lengths[index]
    if group:
        yield group
