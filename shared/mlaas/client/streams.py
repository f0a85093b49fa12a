"""Any number of texts, in batches of which a few are on their way at once; what comes back is in the texts' order.

Memory is bounded: no text is read from the iterable before there is room for it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from ..errors import InvalidRequest, MlaasError
from .problems import StreamBroken

__all__ = ["BATCH_BYTES", "Batch", "asked", "asked_async"]

T = TypeVar("T")

BATCH_BYTES = 192 * 1024  # what an event may hold, with room for the rest of the request


@dataclass(frozen=True)
class Batch:
    """Texts, and the number of the first one; `broken` says why nothing follows, where what followed is no text."""

    first: int
    texts: list[str]
    broken: MlaasError | None = None


@dataclass
class Batches:
    """Gathers texts: `add` gives the batches that are full, `rest` what is left."""

    size: int
    first: int
    _texts: list[str] = field(default_factory=list)
    _bytes: int = 0

    def add(self, text: object) -> list[Batch]:
        """After one that is `broken` there is nothing to add."""
        if not isinstance(text, str):
            no_text = InvalidRequest(f"it is no text but a {type(text).__name__}", field="texts", remedy="Leave it out, or make it a text.")
            return [*self.rest(), Batch(self.first, [], no_text)]
        size = len(json.dumps(text, ensure_ascii=False).encode("utf-8", "replace"))
        full = self._texts and (len(self._texts) == self.size or self._bytes + size > BATCH_BYTES)
        done = self.rest() if full else []
        self._texts.append(text)
        self._bytes += size
        return done

    def rest(self) -> list[Batch]:
        """What is there, if anything is."""
        done = [Batch(self.first, self._texts)] if self._texts else []
        self.first, self._texts, self._bytes = self.first + len(self._texts), [], 0
        return done


def asked(texts: Iterable[str], ask: Callable[[Batch], Sequence[T]], *, batch_size: int, in_flight: int, start: int) -> Iterator[T]:
    """What `ask` gives for each text, from number `start` on. Raises StreamBroken, which says at which row."""
    _check(batch_size, in_flight, start)
    return _asked(texts, ask, batch_size, in_flight, start)


def _asked(texts: Iterable[str], ask: Callable[[Batch], Sequence[T]], size: int, in_flight: int, start: int) -> Iterator[T]:
    flying: deque[tuple[Batch, Future[Sequence[T]]]] = deque()
    pool = ThreadPoolExecutor(in_flight, thread_name_prefix="mlaas-stream")

    def landed() -> Iterator[T]:
        batch, future = flying.popleft()
        try:
            if batch.broken:
                raise batch.broken
            yield from future.result()
        except MlaasError as error:
            if (good := _before(batch, error)).texts:
                yield from ask(good)
            raise StreamBroken(good.first + len(good.texts), error) from error

    try:
        for batch in _batches(texts, size, start):
            flying.append((batch, pool.submit(ask, batch) if batch.texts else Future()))
            if len(flying) >= in_flight:
                yield from landed()
        while flying:
            yield from landed()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _batches(texts: Iterable[str], size: int, start: int) -> Iterator[Batch]:
    gathered = Batches(size, start)
    for text in itertools.islice(texts, start, None):
        for done in gathered.add(text):
            yield done
            if done.broken:
                return
    yield from gathered.rest()


def asked_async(
    texts: Iterable[str] | AsyncIterable[str],
    ask: Callable[[Batch], Awaitable[Sequence[T]]],
    *,
    batch_size: int,
    in_flight: int,
    start: int,
) -> AsyncIterator[T]:
    """As `asked`, awaited; the texts may come from an asynchronous iterable."""
    _check(batch_size, in_flight, start)
    return _asked_async(texts, ask, batch_size, in_flight, start)


async def _asked_async(
    texts: Iterable[str] | AsyncIterable[str], ask: Callable[[Batch], Awaitable[Sequence[T]]], size: int, in_flight: int, start: int
) -> AsyncIterator[T]:
    flying: deque[tuple[Batch, asyncio.Future[Sequence[T]] | None]] = deque()

    async def landed() -> AsyncIterator[T]:
        batch, future = flying.popleft()
        try:
            if future is None:
                raise batch.broken or AssertionError("a batch without texts says why")
            for item in await future:
                yield item
        except MlaasError as error:
            if (good := _before(batch, error)).texts:
                for item in await ask(good):
                    yield item
            raise StreamBroken(good.first + len(good.texts), error) from error

    try:
        async for batch in _batches_async(texts, size, start):
            flying.append((batch, asyncio.ensure_future(ask(batch)) if batch.texts else None))
            if len(flying) >= in_flight:
                async for item in landed():
                    yield item
        while flying:
            async for item in landed():
                yield item
    finally:
        for _, future in flying:
            if future:
                future.cancel()


async def _batches_async(texts: Iterable[str] | AsyncIterable[str], size: int, start: int) -> AsyncIterator[Batch]:
    if not isinstance(texts, AsyncIterable):
        for batch in _batches(texts, size, start):
            yield batch
        return
    gathered, number = Batches(size, start), 0
    async for text in texts:
        number += 1
        for done in gathered.add(text) if number > start else ():
            yield done
            if done.broken:
                return
    for done in gathered.rest():
        yield done


def _before(batch: Batch, error: MlaasError) -> Batch:
    """The texts before the one to blame: a refusal names the text's place in its batch, e.g. `predict_input.input_text.5`."""
    last = (error.field or "").rpartition(".")[2]
    count = int(last) if isinstance(error, InvalidRequest) and last.isdecimal() and int(last) < len(batch.texts) else 0
    return Batch(batch.first, batch.texts[:count])


def _check(batch_size: int, in_flight: int, start: int) -> None:
    for name, value, least in (("batch_size", batch_size, 1), ("in_flight", in_flight, 1), ("start", start, 0)):
        if value < least:
            raise InvalidRequest(f"`{name}` must be at least {least}", field=name, remedy="Leave it out for the default.")
