"""The outbox: events that a task owes, published at least once, exactly as they were recorded, and kept in the journal before."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

from cloudevents.http import CloudEvent

from . import events, metrics, tracing
from .errors import InvalidRequest, MlaasError, Unavailable
from .journal import Journal
from .settings import Settings
from .tasks import Tasks

__all__ = ["flush", "publish", "try_publish"]

_TIMEOUT_SECONDS = 10.0
_REFUSED = (400, 413, 415, 422)  # it is this event that the Broker will not have; other statuses are about the Broker

log = logging.getLogger("mlaas")


def publish(event: CloudEvent, settings: Settings) -> None:
    """Hand `event` to the Broker at K_SINK. Raises Unavailable unless it says that it has it, InvalidRequest if it never will."""
    import requests

    if not settings.sink:
        raise Unavailable("there is no Broker to publish to", field="K_SINK", remedy="Set K_SINK to the Broker's ingress.")
    body = json.dumps(events.to_json(event), ensure_ascii=False).encode()
    headers = {"Content-Type": events.STRUCTURED}
    if trace := tracing.traceparent(event.get("traceparent")):
        headers["traceparent"] = trace
    try:
        answer = requests.post(settings.sink, data=body, headers=headers, timeout=_TIMEOUT_SECONDS)
    except requests.RequestException as error:
        raise Unavailable("the Broker is away") from error
    if answer.status_code in _REFUSED:
        raise InvalidRequest(f"the Broker refused the event with {answer.status_code}", remedy="See the Broker's log.")
    if not answer.ok:
        raise Unavailable(f"the Broker answered {answer.status_code}")


def try_publish(event: CloudEvent, settings: Settings) -> bool:
    """`publish`, for events that may be lost."""
    try:
        publish(event, settings)
    except MlaasError:
        return False
    return True


def flush(tasks: Tasks, settings: Settings, publish: Callable[[CloudEvent, Settings], None] = publish) -> int:
    """Keep and publish what the outbox holds, oldest first, as far as the Broker takes it; how many it took.

    An event that the Broker refuses stays in the outbox and stops none of the others.
    """
    count, journal = 0, Journal(tasks.documents)
    try:
        for task_id, event in tasks.owed():
            about = {"mlaas.task_id": task_id, **events.span_attributes(event)}
            with tracing.span(f"publish {event['type']}", kind="producer", parent=event.get("traceparent"), attributes=about) as span:
                span.exported = False  # until it is published: it is tried twice a second while the Broker is away
                journal.keep(task_id, event)
                fields = {"id": event["id"], "type": event["type"], "task_id": task_id}
                try:
                    publish(event, settings)
                except InvalidRequest as error:
                    log.error("outbox.refused", extra={"fields": {**fields, "reason": error.detail}})
                    continue
                tasks.published(task_id, event["id"])
                span.exported = True
                count += 1
                metrics.PUBLISHED.add(event["type"])
                log.info("outbox.published", extra={"fields": fields})
    except MlaasError as error:
        log.warning("outbox.waiting", extra={"fields": {"reason": error.detail}})
    return count
