"""Requests in flight for one model share its batches, and too many are told to come back.

There is no thread of its own: of the threads whose requests wait, the one that waits longest runs the next batch, for itself and
for the others, until its own rows are done; then the next one does. What arrives while a batch runs is in the next batch, so
requests are merged as far as they come faster than they are answered. A batch that fails is run again by each of its
requests alone, so that only those fail whose own rows are at fault.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from . import metrics
from .errors import Overloaded, Unavailable

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Batcher", "Caller", "Part", "Work", "caller", "groups"]

PADDING = 64  # tokens of padding that cost less than another call of the graph
LOOK_SECONDS = 0.2  # between two looks whether a waiting caller is still there
READ_SECONDS = 0.05  # a request that has not come to its batch by then is busy with something else, e.g. a download
RATE_TOKENS = 256  # a smaller batch says more about the cost of a call than about the pace
RATE_KEPT = 0.8  # how much of the measured pace outlives a batch

T = TypeVar("T")
log = logging.getLogger("mlaas")


class Part(NamedTuple):
    """Which rows of a request are in it (b indices), the graph's outputs (first axis b) and the attention mask (b, length)."""

    indices: list[int]
    values: list[NDArray[Any]]
    mask: NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Work(Generic[T]):
    """Rows of one request, with their `lengths` in tokens; `budget` tokens at most are in a batch, padding included.

    `compute` gives the outputs and the attention mask of rows; works of one `key` may share a batch.
    """

    rows: Sequence[T]
    lengths: Sequence[int]
    budget: int
    key: Hashable
    compute: Callable[[list[T]], tuple[list[NDArray[Any]], NDArray[Any]]]


@dataclass(eq=False, kw_only=True)
class Caller:
    """Who waits for an answer, and has `waited` so many seconds.

    `gone` says whether they hung up, `deadline` (time.monotonic) until when they wait.
    """

    gone: Callable[[], bool] = lambda: False
    deadline: float = math.inf
    waited: float = 0.0
    arriving: bool = True
    since: float = field(default_factory=time.monotonic)

    def left(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return time.monotonic() > self.deadline or self.gone()


_caller: ContextVar[Caller | None] = ContextVar("mlaas_caller", default=None)
_arriving: set[Caller] = set()  # requests of this process that may soon need a batch; adding and removing are atomic


@contextmanager
def caller(one: Caller) -> Iterator[None]:
    """What the block asks of a model is for `one`."""
    token = _caller.set(one)
    _arriving.add(one)
    try:
        yield
    finally:
        _arriving.discard(one)
        _caller.reset(token)


@dataclass(eq=False)
class _Job(Generic[T]):
    work: Work[T]
    caller: Caller | None
    pending: list[int]
    since: float = field(default_factory=time.perf_counter)
    parts: list[Part] = field(default_factory=list)
    leads: bool = False
    woken: threading.Event = field(default_factory=threading.Event)

    @property
    def tokens(self) -> int:
        return sum(self.work.lengths[index] for index in self.pending)

    def take(self, indices: list[int], values: list[NDArray[Any]], mask: NDArray[Any]) -> None:
        self.parts.append(Part(indices, values, mask))
        done = set(indices)
        self.pending = [index for index in self.pending if index not in done]


class Batcher(Generic[T]):
    """The batches of one model.

    `wait` (seconds) is how long a batch may be held for requests that have come in and are still being read; none is held
    where there are none. With a `wait` of 0 requests share no batches. A request that would wait longer than `limit` (seconds), at
    the pace that was measured, is refused.
    """

    def __init__(self, *, wait: float = 0.003, limit: float = math.inf) -> None:
        self._wait, self._limit = wait, limit
        self._changed = threading.Condition()
        self._jobs: list[_Job[T]] = []  # all that have rows to be computed, in the order of their arrival
        self._led = False
        self._tokens = self._seconds = 0.0  # computed lately; their ratio is the pace

    def run(self, work: Work[T]) -> list[Part]:
        """The outputs of all rows of `work`, each row in one part.

        Raises Overloaded where it would have to wait too long, Unavailable when its caller has left, and what `compute` raises
        for its rows alone.
        """
        by_length = sorted(range(len(work.rows)), key=work.lengths.__getitem__)
        job = _Job(work, _caller.get(), by_length)
        if self._wait:
            self._share(job)
        for group in groups([work.lengths[index] for index in job.pending], work.budget):  # what is not shared, or failed so
            indices = [job.pending[place] for place in group]
            job.parts.append(Part(indices, *work.compute([work.rows[index] for index in indices])))
        return job.parts

    def _share(self, job: _Job[T]) -> None:
        with self._changed:
            self._admit(job)
            self._jobs.append(job)
            job.leads, self._led = not self._led, True
            self._changed.notify_all()
        while not job.leads and not job.woken.wait(LOOK_SECONDS):
            self._check(job)
        if job.leads:
            self._lead(job)

    def _admit(self, job: _Job[T]) -> None:
        """Refuse a request that would wait too long; what is no request, or was admitted once, is never refused."""
        one = job.caller
        if one is None or not one.arriving:
            return
        one.arriving = False
        _arriving.discard(one)
        ahead = sum(each.tokens for each in self._jobs) * self._seconds / self._tokens if self._tokens else 0.0
        if one.waited + ahead > self._limit:
            metrics.OVERLOADED.add()
            again = max(1, math.ceil(ahead))
            raise Overloaded("too much work is waiting for this model", retry_after=again, remedy=f"Send it again in {again} s.")

    def _check(self, job: _Job[T]) -> None:
        """Give up a waiting job's place when nobody waits for its answer."""
        if job.caller and job.caller.left():
            with self._changed:
                if job.leads or job not in self._jobs:
                    return
                self._jobs.remove(job)
            raise _left()

    def _lead(self, job: _Job[T]) -> None:
        try:
            self._gather(job)
            while job.pending and job in self._jobs:
                if job.caller and job.caller.left():
                    raise _left()
                self._step(job)
        finally:
            with self._changed:
                if job in self._jobs:
                    self._jobs.remove(job)
                self._led = bool(self._jobs)
                if self._jobs:
                    self._jobs[0].leads = True
                    self._jobs[0].woken.set()

    def _gather(self, job: _Job[T]) -> None:
        """Wait for requests that are on their way, for a bounded time and while there is room in the batch."""
        end = time.monotonic() + self._wait
        with self._changed:
            while (left := end - (now := time.monotonic())) > 0 and sum(each.tokens for each in self._jobs) < job.work.budget:
                if not any(now - each.since < READ_SECONDS for each in tuple(_arriving)):
                    break
                self._changed.wait(left)

    def _step(self, job: _Job[T]) -> None:
        """Compute one batch: the leader's shortest rows, and those of others that are about as long."""
        batch = self._batch(job)
        members = list(dict.fromkeys(each for each, _ in batch))
        now = time.perf_counter()
        for each in members:
            if not each.parts:
                metrics.BATCH_WAIT_SECONDS.observe(now - each.since)
        metrics.BATCH_REQUESTS.observe(len(members))
        try:
            values, mask = job.work.compute([each.work.rows[index] for each, index in batch])
        except Exception as error:  # nothing is lost: each of the requests runs its rows again, and raises what they raise
            log.warning("batch.failed", extra={"fields": {"requests": len(members), "error": type(error).__name__}})
            self._done(members)
            return
        self._measure(sum(each.work.lengths[index] for each, index in batch), time.perf_counter() - now)
        for each in members:
            places = [place for place, (other, _) in enumerate(batch) if other is each]
            mine = [batch[place][1] for place in places]
            each.take(mine, *((values, mask) if len(members) == 1 else ([one[places] for one in values], mask[places])))
        self._done([each for each in members if not each.pending])

    def _batch(self, job: _Job[T]) -> list[tuple[_Job[T], int]]:
        rows: list[tuple[_Job[T], int]] = []
        tokens = 0
        with self._changed:
            for each in [job, *(each for each in self._jobs if each is not job and each.work.key == job.work.key)]:
                if tokens >= job.work.budget:
                    break
                rows += [(each, index) for index in each.pending]
                tokens += each.tokens
        first = (job, job.pending[0])
        for group in groups([each.work.lengths[index] for each, index in rows], job.work.budget):
            batch = [rows[place] for place in group]
            if first in batch:
                return batch
        raise AssertionError("every row is in a group")

    def _done(self, jobs: list[_Job[T]]) -> None:
        with self._changed:
            self._jobs = [each for each in self._jobs if each not in jobs]
        for each in jobs:
            each.woken.set()

    def _measure(self, tokens: int, seconds: float) -> None:
        if tokens >= RATE_TOKENS:
            with self._changed:
                self._tokens, self._seconds = RATE_KEPT * self._tokens + tokens, RATE_KEPT * self._seconds + seconds


def groups(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices of `lengths`, shortest first, in groups whose size times longest length stays within `budget`; a group has one at least.

    A group also ends where a longer row would add more padding than another call of the graph costs.
    """
    group: list[int] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        padded = (len(group) + 1) * lengths[index]
        if group and (padded > budget or padded - tokens - lengths[index] > PADDING + tokens // 4):
            yield group
            group, tokens = [], 0
        group.append(index)
        tokens += lengths[index]
    if group:
        yield group


def _left() -> Unavailable:
    return Unavailable("nobody waits for the answer any more", remedy="Allow more time for it.")
