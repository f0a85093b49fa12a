"""The outbox: events that a task owes, published at least once, exactly as they were recorded."""

from __future__ import annotations

import json
import logging

from cloudevents.http import CloudEvent

from . import events
from .errors import MlaasError, Unavailable
from .settings import Settings
from .tasks import Tasks

__all__ = ["flush", "publish", "try_publish"]

_TIMEOUT_SECONDS = 10.0

log = logging.getLogger("mlaas")


def publish(event: CloudEvent, settings: Settings) -> None:
    """Hand `event` to the Broker at K_SINK. Raises Unavailable unless the Broker says that it has it."""
    import requests

    if not settings.sink:
        raise Unavailable("there is no Broker to publish to", field="K_SINK", remedy="Set K_SINK to the Broker's ingress.")
    body = json.dumps(events.to_json(event), ensure_ascii=False).encode()
    try:
        answer = requests.post(settings.sink, data=body, headers={"Content-Type": events.STRUCTURED}, timeout=_TIMEOUT_SECONDS)
    except requests.RequestException as error:
        raise Unavailable("the Broker is away") from error
    if not answer.ok:
        raise Unavailable(f"the Broker answered {answer.status_code}")


def try_publish(event: CloudEvent, settings: Settings) -> bool:
    """`publish`, for events that may be lost."""
    try:
        publish(event, settings)
    except Unavailable:
        return False
    return True


def flush(tasks: Tasks, settings: Settings) -> int:
    """Publish what the outbox holds, oldest first, as far as the Broker takes it; how many it took."""
    count = 0
    try:
        for task_id, event in tasks.owed():
            publish(event, settings)
            tasks.published(task_id, event["id"])
            count += 1
            log.info("outbox.published", extra={"fields": {"id": event["id"], "type": event["type"], "task_id": task_id}})
    except MlaasError as error:
        log.warning("outbox.waiting", extra={"fields": {"reason": error.detail}})
    return count
