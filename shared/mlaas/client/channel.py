"""Kafka as a way to ask: one reader for all who wait, so that many calls share one connection."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from typing import Any

from cloudevents.http import CloudEvent

from .. import events, references
from ..errors import MlaasError, Unavailable
from ..settings import Settings
from .event_client import EventClient
from .problems import from_problem
from .steps import Answer, Ask

__all__ = ["Channel"]

TASKS = 10_000  # whose last events are remembered


class Channel:
    """Publishes requests, and reads the topic of events from before the first one was sent."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kafka = EventClient(settings)
        self._waiting: dict[str, Future[CloudEvent]] = {}
        self._tasks: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._read, name="mlaas-replies", daemon=True)
        self._reader.start()

    def send(self, ask: Ask, patience: float) -> Future[CloudEvent]:
        """Publish a request, durably; its reply will be the future's. Raises TooLarge, Unavailable."""
        future: Future[CloudEvent] = Future()
        future.set_running_or_notify_cancel()  # whoever stops waiting does not trouble the reader
        future = self._waiting.setdefault(ask.key, future)
        event = events.new(ask.capability, dict(ask.request), id=ask.key)
        try:
            self._kafka.send([event], patience=patience)
        except MlaasError:
            self._waiting.pop(ask.key, None)
            raise
        return future

    def ask(self, ask: Ask, seconds: float) -> Answer:
        """Publish a request and wait for its reply. Raises what the reply says, Unavailable where none comes."""
        started = time.perf_counter()
        future = self.send(ask, seconds)
        try:
            reply = future.result(max(seconds - (time.perf_counter() - started), 0.0))
        except TimeoutError:
            raise self.silence(ask, seconds) from None
        return self.answer(ask, reply, time.perf_counter() - started)

    def silence(self, ask: Ask, seconds: float) -> Unavailable:
        """Nobody waits for this reply any more: why."""
        self._waiting.pop(ask.key, None)
        remedy = "See `mlaas watch --dead-letters`; the same idempotency key gives the same reply."
        return Unavailable(f"no reply came within {seconds:g} s", remedy=remedy)

    def answer(self, ask: Ask, reply: CloudEvent, seconds: float) -> Answer:
        """What a reply says; data that it only refers to are read from the storage and verified. Raises MlaasError for a failure."""
        whole = references.resolved(reply, self._settings)
        if reply["type"] == events.event_type(ask.capability, "failed"):
            raise from_problem(whole.data if isinstance(whole.data, dict) else {})
        return Answer(whole.data, seconds, reply.get("servertiming") or "")

    def task(self, task_id: str) -> dict[str, Any] | None:
        """What the last event said of a task that was begun or has moved since this was opened."""
        return self._tasks.get(task_id)

    def close(self) -> None:
        """Leave Kafka; who still waits hears so."""
        self._ended.set()
        self._reader.join()
        self._kafka.close()
        for future in list(self._waiting.values()):
            future.set_exception(Unavailable("the client was closed before the reply came"))
        self._waiting.clear()

    def _read(self) -> None:
        from kafka.errors import KafkaError

        while not self._ended.is_set():
            try:
                for event in self._kafka.watch(seconds=0.2):
                    self._keep(event)
                    if future := self._waiting.pop(str(event.get("causationid")), None):
                        future.set_result(event)
            except KafkaError:  # it is away: who waits has a deadline
                self._ended.wait(0.5)

    def _keep(self, event: CloudEvent) -> None:
        data = event.data
        if not isinstance(data, dict) or "task_id" not in data or "task_status" not in data:
            return
        self._tasks[str(data["task_id"])] = data
        self._tasks.move_to_end(str(data["task_id"]))
        while len(self._tasks) > TASKS:
            self._tasks.popitem(last=False)
