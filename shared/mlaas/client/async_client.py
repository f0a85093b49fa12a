"""`AsyncClient`: the calls of `Client`, to be awaited."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..contracts import Contract, IndexRequest, ModelRequest, TrainRequest
from ..contracts import Task as TaskData
from ..settings import Settings, current
from . import capabilities
from .connection import asking, channel, connection, looking, read
from .predicting import AsyncPrediction
from .retries import Retries
from .steps import Answer, Ask, Look, Pause, Request, Step, run_async
from .tasks import AsyncTask, listed, submitted

if TYPE_CHECKING:
    from ..catalog.kinds import Kind
    from .channel import Channel
    from .entries import AsyncEntries
    from .journal import AsyncEvents

__all__ = ["AsyncClient"]


class AsyncClient:
    """The calls of a Client with `await`, for one event loop; `async with` closes it. Kafka is read in a thread."""

    def __init__(
        self,
        url: str | None = None,
        *,
        kafka: str | None = None,
        token: str | None = None,
        timeout: float = 60.0,
        retries: int | Retries = 3,
        settings: Settings | None = None,
    ) -> None:
        from .http import AsyncHttp  # only who has a client waits for httpx2

        self._link = connection(url, token, timeout, retries, kafka, settings)
        self._http = AsyncHttp()
        self._by_events, self._opening = bool(kafka), asyncio.Lock()
        self._channel: Channel | None = None
        self.classify = AsyncPrediction(self, capabilities.CLASSIFY)
        self.fill_mask = AsyncPrediction(self, capabilities.FILL_MASK)
        self.search = AsyncPrediction(self, capabilities.SEARCH)
        self.embed = AsyncPrediction(self, capabilities.EMBED)
        self.ner = AsyncPrediction(self, capabilities.NER)
        self.answer = AsyncPrediction(self, capabilities.ANSWER)
        self.generate = AsyncPrediction(self, capabilities.GENERATE)

    @classmethod
    def over_kafka(cls, **options: Any) -> AsyncClient:
        """A client that asks by the Kafka of the settings (MLAAS_KAFKA)."""
        return cls(kafka=(options.get("settings") or current()).kafka, **options)

    @cached_property
    def models(self) -> AsyncEntries:
        """The models of the catalog."""
        return self._entries("models")

    @cached_property
    def indexes(self) -> AsyncEntries:
        """The vector stores of the catalog."""
        return self._entries("indexes")

    @cached_property
    def datasets(self) -> AsyncEntries:
        """The data sets of the catalog."""
        return self._entries("datasets")

    @cached_property
    def events(self) -> AsyncEvents:
        """The events that tasks made known."""
        from .journal import AsyncEvents

        return AsyncEvents(self, self._link)

    def _entries(self, kind: Kind) -> AsyncEntries:
        from .entries import AsyncEntries  # only who asks for the catalog waits for its contract

        return AsyncEntries(self, self._link, kind)

    async def ask(self, capability: str, request: Mapping[str, Any], *, idempotency_key: str | None = None) -> Answer:
        """Ask a function with a whole request, as GET / of it describes it."""
        answer: Answer = await self.perform(Ask(capability, dict(request), idempotency_key or str(uuid.uuid4())))
        return answer

    async def submit(self, capability: str, request: Contract | Mapping[str, Any], *, idempotency_key: str | None = None) -> AsyncTask:
        """Start long work with a whole request: also classify, fill_mask and search for a file (`dataset`)."""
        return AsyncTask(self, await run_async(submitted(capability, request, idempotency_key), self.perform))

    async def train(self, request: TrainRequest | Mapping[str, Any], *, idempotency_key: str | None = None) -> AsyncTask:
        """Start a training; the same key starts none a second time."""
        return await self.submit("train", request, idempotency_key=idempotency_key)

    async def index(self, request: IndexRequest | Mapping[str, Any], *, idempotency_key: str | None = None) -> AsyncTask:
        """Start to build an index, or to update one; the same key starts nothing a second time."""
        return await self.submit("index", request, idempotency_key=idempotency_key)

    async def export(self, request: ModelRequest | Mapping[str, Any], *, idempotency_key: str | None = None) -> AsyncTask:
        """Start to export a checkpoint to ONNX as it is, and to publish it."""
        return await self.submit("model", request, idempotency_key=idempotency_key)

    async def task(self, task_id: str) -> AsyncTask:
        """A task that was started before, here or elsewhere. Raises NotFound."""
        return AsyncTask(self, read(TaskData, await self.perform(Look(task_id))))

    async def tasks(self, *, status: str | None = None, limit: int | None = 20) -> list[AsyncTask]:
        """Tasks, newest first; at most `limit`, None for all."""
        return [AsyncTask(self, one) for one in await run_async(listed(self._link, status, limit), self.perform)]

    async def perform(self, step: Step) -> Any:
        """Take a step: see `mlaas.client.steps`."""
        match step:
            case Pause(seconds):
                return await asyncio.sleep(seconds)
            case Request():
                return await self._http.send(step)
            case Ask():
                if self._by_events:
                    return await self._by_kafka(await self._opened(), step)
                return await run_async(asking(self._link, step), self.perform)
            case Look():
                known = self._channel.task(step.task_id) if self._channel and not step.cancel else None
                return known or await run_async(looking(self._link, step), self.perform)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()
        if self._channel:
            await asyncio.to_thread(self._channel.close)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def _opened(self) -> Channel:
        """The channel; connecting takes a moment, in which others go on."""
        async with self._opening:
            if self._channel is None:
                self._channel = await asyncio.to_thread(channel, self._link)
            return self._channel

    async def _by_kafka(self, kafka: Channel, ask: Ask) -> Answer:
        """As the channel does it, without a thread that waits."""
        started, seconds = time.perf_counter(), self._link.timeout
        future = await asyncio.to_thread(kafka.send, ask, seconds)
        try:
            reply = await asyncio.wait_for(asyncio.wrap_future(future), max(seconds - (time.perf_counter() - started), 0.0))
        except TimeoutError:
            raise kafka.silence(ask, seconds) from None
        return await asyncio.to_thread(kafka.answer, ask, reply, time.perf_counter() - started)
