"""Streams of texts: in order, in bounded memory, and clear about the row at which they break."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest

from mlaas.client import StreamBroken
from mlaas.client.streams import BATCH_BYTES, Batch, asked, asked_async
from mlaas.errors import InvalidRequest, Unavailable

OPTIONS = {"batch_size": 4, "in_flight": 3, "start": 0}


def upper(batch: Batch) -> list[str]:
    return [text.upper() for text in batch.texts]


async def upper_async(batch: Batch) -> list[str]:
    await asyncio.sleep(0.001 * (batch.first % 3))
    return upper(batch)


async def gathered(found: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in found]


def broken(found: Iterator[str]) -> tuple[list[str], StreamBroken]:
    return asyncio.run(broken_async(_as_async(found)))


async def broken_async(found: AsyncIterator[str]) -> tuple[list[str], StreamBroken]:
    given: list[str] = []
    try:
        async for item in found:
            given.append(item)
    except StreamBroken as why:
        return given, why
    raise AssertionError("the stream did not break")


async def _as_async(found: Iterator[str]) -> AsyncIterator[str]:
    for item in found:
        yield item


@pytest.mark.parametrize("count", [0, 1, 4, 5, 47])
def test_answers_come_in_the_order_of_the_texts_however_long_each_batch_takes(count: int) -> None:
    def slow(batch: Batch) -> list[str]:
        time.sleep(0.002 * (batch.first % 3))
        return upper(batch)

    texts = [f"t{n}" for n in range(count)]
    assert list(asked(iter(texts), slow, **OPTIONS)) == [text.upper() for text in texts]
    assert asyncio.run(gathered(asked_async(iter(texts), upper_async, **OPTIONS))) == [text.upper() for text in texts]


def test_no_more_texts_are_read_than_are_on_their_way_and_no_more_batches_are_at_once() -> None:
    read, at_once, most, lock = 0, 0, 0, threading.Lock()

    def texts() -> Iterator[str]:
        nonlocal read
        while True:  # millions of rows
            read += 1
            yield "x"

    def ask(batch: Batch) -> list[str]:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.002)
        with lock:
            at_once -= 1
        return upper(batch)

    found = asked(texts(), ask, **OPTIONS)
    for taken in range(1, 200):
        assert next(found) == "X"
        assert read <= taken + 4 * 3 + 1
    found.close()  # type: ignore[attr-defined]
    assert 1 < most <= 3


def test_an_asynchronous_stream_is_bounded_too_and_takes_an_asynchronous_iterable() -> None:
    read = 0

    async def texts() -> AsyncIterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "x"

    async def take() -> None:
        taken = 0
        found = asked_async(texts(), upper_async, **OPTIONS)
        async for _ in found:
            taken += 1
            assert read <= taken + 4 * 3 + 1
            if taken == 100:
                break
        await found.aclose()  # type: ignore[attr-defined]

    asyncio.run(take())


def test_batches_are_small_enough_for_an_event() -> None:
    sizes: list[int] = []

    def ask(batch: Batch) -> list[str]:
        sizes.append(len(batch.texts))
        return batch.texts

    texts = ["x" * (BATCH_BYTES // 3)] * 5 + ["y" * (2 * BATCH_BYTES)] + ["z"] * 2
    assert list(asked(texts, ask, batch_size=100, in_flight=1, start=0)) == texts
    assert sizes == [2, 2, 1, 1, 2]


@pytest.mark.parametrize(
    ("error", "field", "row"),
    [(Unavailable, None, 8), (InvalidRequest, "predict_input.input_text.2", 10), (InvalidRequest, "model.name", 8)],
)
def test_all_rows_before_the_one_to_blame_are_given_out_and_the_error_says_which_it_is(error: Any, field: str | None, row: int) -> None:
    def ask(batch: Batch) -> Sequence[str]:
        if any(text == "t10" for text in batch.texts):
            raise error("no", field=field, remedy="Mend it.")
        return upper(batch)

    async def ask_async(batch: Batch) -> Sequence[str]:
        return ask(batch)

    texts = [f"t{n}" for n in range(30)]
    for given, why in (
        broken(asked(iter(texts), ask, **OPTIONS)),
        asyncio.run(broken_async(asked_async(iter(texts), ask_async, **OPTIONS))),
    ):
        assert given == [text.upper() for text in texts[:row]]
        assert (why.row, why.field, type(why.__cause__)) == (row, field and field.replace("predict_input.input_text.2", "texts.10"), error)
        assert why.remedy == f"Mend it. Go on from there with start={row}."


def test_a_row_that_is_no_text_breaks_the_stream_after_those_before_it() -> None:
    given, why = broken(asked(["a", "b", None, "c"], upper, **OPTIONS))  # type: ignore[list-item]
    assert (given, why.row) == (["A", "B"], 2)
    assert "NoneType" in why.detail


def test_a_stream_goes_on_where_another_one_broke() -> None:
    texts = [f"t{n}" for n in range(11)]
    assert list(asked(texts, upper, batch_size=4, in_flight=2, start=6)) == [text.upper() for text in texts[6:]]

    async def each() -> AsyncIterator[str]:
        for text in texts:
            yield text

    found = asked_async(each(), upper_async, batch_size=4, in_flight=2, start=6)
    assert asyncio.run(gathered(found)) == [text.upper() for text in texts[6:]]


@pytest.mark.parametrize("option", ["batch_size", "in_flight", "start"])
def test_an_option_out_of_range_is_refused_at_the_call(option: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        asked([], upper, **(OPTIONS | {option: -1}))
    assert refused.value.field == option
