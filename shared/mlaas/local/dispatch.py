"""Moves events between Kafka and the functions: what Knative's KafkaSource, Broker and Trigger do."""

from __future__ import annotations

import logging
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

import urllib3

from .. import events
from ..errors import Malformed, TooLarge, Unavailable
from .broker import Journal
from .jobs import Jobs
from .manifests import Delivery, Trigger
from .processes import Process
from .records import Event, from_http, from_record

__all__ = ["Answer", "Dispatcher", "Subscriber", "Topics", "is_retryable", "to_job", "to_service", "to_topic"]

ERROR_BYTES = 1024

log = logging.getLogger("mlaas")


@dataclass(frozen=True)
class Answer:
    """What a subscriber said. Status 0: nothing, the connection failed."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


Subscriber = Callable[[Event], Answer]


def is_retryable(status: int) -> bool:
    """Whether Knative tries again after an answer with this status."""
    return status == 0 or status in (404, 408, 409, 429) or status >= 500


@dataclass(frozen=True)
class Topics:
    """Where replies and dead letters go."""

    broker: str
    dead_letters: str | None


class Dispatcher:
    """One Trigger: hands its events to `subscriber`, and what comes back to the Broker, or the event to the dead letters.

    `target` is what a dead letter says about where the event should have gone.
    """

    def __init__(self, trigger: Trigger, subscriber: Subscriber, journal: Journal, topics: Topics, target: str) -> None:
        self._trigger, self._subscriber, self._journal, self._topics, self._target = trigger, subscriber, journal, topics, target
        self.delivered = self.retried = self.dead_lettered = 0

    def prepare(self, record: Any) -> Event | None:
        """The event of `record` if the Trigger wants it."""
        event = from_record(record)
        return event if self._trigger.matches(event.attributes) else None

    def handle(self, event: Event, attempt: int) -> float | None:
        """Try once; None when the event is at its end, or the seconds until the next try."""
        answer = self._ask(event)
        if 200 <= answer.status < 300:
            refused = self._reply(answer)
            if refused is None:
                self.delivered += 1
                return None
            answer = refused
        elif self._journal.stopping.is_set():
            return 1.0  # perhaps only because the platform stops; it is delivered again at the next start
        elif is_retryable(answer.status) and attempt < self._trigger.delivery.retry:
            self.retried += 1
            return max(self._trigger.delivery.backoff(attempt), _retry_after(answer, self._trigger.delivery))
        self._bury(event, answer)
        return None

    def _ask(self, event: Event) -> Answer:
        try:
            return self._subscriber(event)
        except Unavailable as error:
            return Answer(503, {"Retry-After": str(error.retry_after)}, error.detail.encode())
        except TooLarge as error:
            return Answer(413, {}, error.detail.encode())
        except Exception as error:  # a defect here must cost this event its tries, not the subscription its worker
            log.exception("delivery.defect", extra={"fields": {"trigger": self._trigger.name, "id": event.attributes["id"]}})
            return Answer(0, {}, type(error).__name__.encode())

    def _reply(self, answer: Answer) -> Answer | None:
        """Append the event in `answer` to the Broker; what was wrong with it, if anything."""
        if not events.is_event(answer.headers):
            return None
        try:
            self._journal.append(self._topics.broker, from_http(answer.headers, answer.body).record())
        except (Malformed, TooLarge) as error:
            return Answer(answer.status, {}, f"the reply was refused: {error.detail}".encode())
        return None

    def _bury(self, event: Event, answer: Answer) -> None:
        log.warning(
            "event.dead_lettered", extra={"fields": {"trigger": self._trigger.name, "id": event.attributes["id"], "status": answer.status}}
        )
        self.dead_lettered += 1
        if self._topics.dead_letters is None:
            return
        reason = b64encode(answer.body[:ERROR_BYTES]).decode()
        letter = event.but(knativeerrordest=self._target, knativeerrorcode=str(answer.status or 503), knativeerrordata=reason)
        try:
            self._journal.append(self._topics.dead_letters, letter.record())
        except TooLarge:  # its attributes still say which event it was
            self._journal.append(self._topics.dead_letters, Event(letter.attributes, b"").record())


def _retry_after(answer: Answer, delivery: Delivery) -> float:
    """Seconds that the subscriber asks to be left alone, bounded."""
    text = {name.lower(): value for name, value in answer.headers.items()}.get("retry-after", "") if answer.status in (429, 503) else ""
    try:
        asked = float(text) if text.isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError):
        return 0.0
    return min(max(asked, 0.0), delivery.retry_after_max)


def to_topic(journal: Journal, topic: str, *, structured: bool = False) -> Subscriber:
    """A subscriber that is a topic."""

    def send(event: Event) -> Answer:
        journal.append(topic, event.record(structured=structured))
        return Answer(202)

    return send


def to_job(jobs: Jobs) -> Subscriber:
    """A subscriber that is a JobSink."""

    def send(event: Event) -> Answer:
        jobs.accept(event)
        return Answer(202)

    return send


def to_service(process: Process, http: urllib3.PoolManager, timeout: float) -> Subscriber:
    """A subscriber that is a function; `timeout` of one answer in seconds."""

    def send(event: Event) -> Answer:
        headers, body = event.request()
        with process.use() as url:
            try:
                answer = http.request("POST", f"{url}/", headers=headers, body=body, timeout=timeout, retries=False)
            except urllib3.exceptions.HTTPError as error:
                return Answer(0, {}, f"no answer: {type(error).__name__}".encode())
        return Answer(answer.status, dict(answer.headers), answer.data)

    return send
