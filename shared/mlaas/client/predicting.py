"""`client.classify(texts, model=...)` and the others: texts, a Series or a DataFrame in; results or a DataFrame out; streams."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from ..contracts import Contract
from ..errors import MlaasError
from . import frames, streams
from .capabilities import Capability
from .connection import read
from .problems import StreamBroken
from .steps import Ask, Performer, Steps, run, run_async

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AsyncPrediction", "Prediction"]

P = ParamSpec("P")
R = TypeVar("R", bound=Contract)
I = TypeVar("I")  # noqa: E741 - an item: what one text gives

BATCH_SIZE, IN_FLIGHT = 32, 4
_PARALLEL = ("text_pair", "context")  # what may have one value for each text


class _Described(Generic[P, R, I]):
    """What the two kinds have in common."""

    def __init__(self, client: Performer, capability: Capability[P, R, I]) -> None:
        self._client = client
        self._capability = capability
        self.__doc__ = capability.build.__doc__
        self.__name__ = capability.name
        self.__signature__ = inspect.signature(capability.build).replace(return_annotation=capability.result.__name__)

    def __repr__(self) -> str:
        return f"{self._capability.name}{self.__signature__}"

    def _named(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments after the texts, by their names. Raises TypeError as a call would."""
        bound = inspect.signature(self._capability.build).bind((), *args, **kwargs)
        return dict(list(bound.arguments.items())[1:])

    def _steps(self, texts: Sequence[str], named: Mapping[str, Any]) -> Steps[R]:
        request = self._capability.build(texts, **named)  # type: ignore[call-arg]
        asked = request.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        answer = yield Ask(self._capability.name, asked, str(uuid.uuid4()))
        return read(self._capability.result, answer.data)

    def _items(self, batch: streams.Batch, named: Mapping[str, Any]) -> Steps[Sequence[I]]:
        end = batch.first + len(batch.texts)
        mine = {
            name: value[batch.first : end] if name in _PARALLEL and not isinstance(value, str | None) else value
            for name, value in named.items()
        }
        result = yield from self._steps(batch.texts, mine)
        return self._capability.items(result)

    def _table(
        self, texts: pd.Series[Any] | pd.DataFrame, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> tuple[pd.Series[Any], list[int], dict[str, Any]]:
        """The column, the positions of its texts, and the other arguments, those for each text without the ones of missing texts."""
        column = None
        if texts.ndim == 2:
            column, args = (kwargs.pop("column"), args) if "column" in kwargs else (args[0], args[1:]) if args else (None, args)
        series = frames.column_of(texts, column)
        rows = frames.filled_rows(series)
        named = self._named(args, kwargs)
        for name in _PARALLEL:
            if not isinstance(value := named.get(name), str | None):
                values = list(value)
                named[name] = [values[row] for row in rows if row < len(values)]
        return series, rows, named

    @property
    def _size(self) -> int:
        return min(BATCH_SIZE, self._capability.most)


@contextmanager
def _of_rows(rows: Sequence[int]) -> Iterator[None]:
    """A break names the row of the table, in which texts may be missing."""
    try:
        yield
    except StreamBroken as broken:
        cause = broken.__cause__
        assert isinstance(cause, MlaasError), "what breaks a stream has a cause"
        go_on = "Mend the row or leave it out; `stream` also gives what comes before it."
        raise StreamBroken(rows[broken.row], cause, go_on) from cause


class Prediction(_Described[P, R, I]):
    """A prediction, and its stream. Raises MlaasError and its subclasses."""

    @overload
    def __call__(self, texts: str | Sequence[str], *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(self, texts: pd.Series[Any], *args: P.args, **kwargs: P.kwargs) -> pd.DataFrame: ...
    @overload
    def __call__(self, texts: pd.DataFrame, column: str, *args: P.args, **kwargs: P.kwargs) -> pd.DataFrame: ...
    def __call__(self, texts: Any, *args: Any, **kwargs: Any) -> Any:
        """The result for the texts, in one request; of a Series or a DataFrame's column, in batches, a DataFrame with the same index."""
        if frames.is_pandas(texts):
            series, rows, named = self._table(texts, args, kwargs)
            with _of_rows(rows):
                found = self._streamed((series.iloc[row] for row in rows), named, self._size, IN_FLIGHT, 0)
                return frames.frame_of(self._capability, found, rows, series.index)
        named = self._named(args, kwargs)
        return run(self._steps([texts] if isinstance(texts, str) else texts, named), self._client.perform)

    def stream(
        self, texts: Iterable[str], *args: Any, batch_size: int = BATCH_SIZE, in_flight: int = IN_FLIGHT, start: int = 0, **kwargs: Any
    ) -> Iterator[I]:
        """What each text gives, in order, in bounded memory: `in_flight` batches of `batch_size` texts at once.

        A text without an answer, after retries, raises StreamBroken with its `row`, once all before it were given out;
        `start=row` of another call with the same texts goes on there.
        """
        return self._streamed(texts, self._named(args, kwargs), min(batch_size, self._capability.most), in_flight, start)

    def _streamed(self, texts: Iterable[str], named: Mapping[str, Any], size: int, in_flight: int, start: int) -> Iterator[I]:
        def ask(batch: streams.Batch) -> Sequence[I]:
            return run(self._items(batch, named), self._client.perform)

        return streams.asked(texts, ask, batch_size=size, in_flight=in_flight, start=start)


class AsyncPrediction(_Described[P, R, I]):
    """The same, to be awaited."""

    @overload
    async def __call__(self, texts: str | Sequence[str], *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def __call__(self, texts: pd.Series[Any], *args: P.args, **kwargs: P.kwargs) -> pd.DataFrame: ...
    @overload
    async def __call__(self, texts: pd.DataFrame, column: str, *args: P.args, **kwargs: P.kwargs) -> pd.DataFrame: ...
    async def __call__(self, texts: Any, *args: Any, **kwargs: Any) -> Any:
        """The result for the texts, in one request; of a Series or a DataFrame's column, in batches, a DataFrame with the same index."""
        if frames.is_pandas(texts):
            series, rows, named = self._table(texts, args, kwargs)
            with _of_rows(rows):
                found = self._streamed((series.iloc[row] for row in rows), named, self._size, IN_FLIGHT, 0)
                return frames.frame_of(self._capability, [item async for item in found], rows, series.index)
        named = self._named(args, kwargs)
        return await run_async(self._steps([texts] if isinstance(texts, str) else texts, named), self._client.perform)

    def stream(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        *args: Any,
        batch_size: int = BATCH_SIZE,
        in_flight: int = IN_FLIGHT,
        start: int = 0,
        **kwargs: Any,
    ) -> AsyncIterator[I]:
        """As the stream of a Client, for `async for`; the texts may come from an asynchronous iterable as well."""
        return self._streamed(texts, self._named(args, kwargs), min(batch_size, self._capability.most), in_flight, start)

    def _streamed(
        self, texts: Iterable[str] | AsyncIterable[str], named: Mapping[str, Any], size: int, in_flight: int, start: int
    ) -> AsyncIterator[I]:
        async def ask(batch: streams.Batch) -> Sequence[I]:
            return await run_async(self._items(batch, named), self._client.perform)

        return streams.asked_async(texts, ask, batch_size=size, in_flight=in_flight, start=start)
