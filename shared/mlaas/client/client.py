"""`Client`: the platform from Python, by HTTP or by Kafka with the same calls."""

from __future__ import annotations

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
from .predicting import Prediction
from .retries import Retries
from .steps import Answer, Ask, Look, Pause, Request, Step, run
from .tasks import Task, listed, submitted

if TYPE_CHECKING:
    from ..catalog.kinds import Kind
    from .entries import Entries
    from .journal import Events

__all__ = ["Client"]


class Client:
    """The platform at `url` (MLAAS_URL by default), for any number of threads; use it as a context manager, or `close` it.

    With `kafka` (HOST:PORT,...), predictions, trainings and index builds are asked for by events on Kafka, and their tasks are followed
    there; the catalog is always asked by HTTP. `timeout` is in seconds and for a whole call, repetitions included. `retries` says how
    often a call is repeated that met a broken connection, 429 or 503. Every call raises MlaasError or one of its subclasses, with
    `detail`, `field` and `remedy`.
    """

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
        from .http import Http  # only who has a client waits for httpx2

        self._link = connection(url, token, timeout, retries, kafka, settings)
        self._http = Http()
        self._channel = channel(self._link) if kafka else None
        self.classify = Prediction(self, capabilities.CLASSIFY)
        self.fill_mask = Prediction(self, capabilities.FILL_MASK)
        self.search = Prediction(self, capabilities.SEARCH)
        self.embed = Prediction(self, capabilities.EMBED)
        self.ner = Prediction(self, capabilities.NER)
        self.answer = Prediction(self, capabilities.ANSWER)
        self.generate = Prediction(self, capabilities.GENERATE)

    @classmethod
    def over_kafka(cls, **options: Any) -> Client:
        """A client that asks by the Kafka of the settings (MLAAS_KAFKA)."""
        return cls(kafka=(options.get("settings") or current()).kafka, **options)

    @cached_property
    def models(self) -> Entries:
        """The models of the catalog."""
        return self._entries("models")

    @cached_property
    def indexes(self) -> Entries:
        """The vector stores of the catalog."""
        return self._entries("indexes")

    @cached_property
    def datasets(self) -> Entries:
        """The data sets of the catalog."""
        return self._entries("datasets")

    @cached_property
    def events(self) -> Events:
        """The events that tasks made known."""
        from .journal import Events

        return Events(self, self._link)

    def _entries(self, kind: Kind) -> Entries:
        from .entries import Entries  # only who asks for the catalog waits for its contract

        return Entries(self, self._link, kind)

    def ask(self, capability: str, request: Mapping[str, Any], *, idempotency_key: str | None = None) -> Answer:
        """Ask a function with a whole request, as GET / of it describes it."""
        answer: Answer = self.perform(Ask(capability, dict(request), idempotency_key or str(uuid.uuid4())))
        return answer

    def submit(self, capability: str, request: Contract | Mapping[str, Any], *, idempotency_key: str | None = None) -> Task:
        """Start long work with a whole request: also classify, fill_mask and search for a file (`dataset`)."""
        return Task(self, run(submitted(capability, request, idempotency_key), self.perform))

    def train(self, request: TrainRequest | Mapping[str, Any], *, idempotency_key: str | None = None) -> Task:
        """Start a training; the same key starts none a second time."""
        return self.submit("train", request, idempotency_key=idempotency_key)

    def index(self, request: IndexRequest | Mapping[str, Any], *, idempotency_key: str | None = None) -> Task:
        """Start to build an index, or to update one; the same key starts nothing a second time."""
        return self.submit("index", request, idempotency_key=idempotency_key)

    def export(self, request: ModelRequest | Mapping[str, Any], *, idempotency_key: str | None = None) -> Task:
        """Start to export a checkpoint to ONNX as it is, and to publish it."""
        return self.submit("model", request, idempotency_key=idempotency_key)

    def task(self, task_id: str) -> Task:
        """A task that was started before, here or elsewhere. Raises NotFound."""
        return Task(self, read(TaskData, self.perform(Look(task_id))))

    def tasks(self, *, status: str | None = None, limit: int | None = 20) -> list[Task]:
        """Tasks, newest first; at most `limit`, None for all."""
        return [Task(self, one) for one in run(listed(self._link, status, limit), self.perform)]

    def perform(self, step: Step) -> Any:
        """Take a step: see `mlaas.client.steps`."""
        match step:
            case Pause(seconds):
                return time.sleep(seconds)
            case Request():
                return self._http.send(step)
            case Ask():
                return self._channel.ask(step, self._link.timeout) if self._channel else run(asking(self._link, step), self.perform)
            case Look():
                known = self._channel.task(step.task_id) if self._channel and not step.cancel else None
                return known or run(looking(self._link, step), self.perform)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        if self._channel:
            self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
