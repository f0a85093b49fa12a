"""What the catalog does with events: counts what was served, and accepts checkpoints that are to become models."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

from cloudevents.http import CloudEvent

from .. import models
from ..catalog import Catalog, Kind, usage
from ..contracts import ModelRequest
from ..documents import shared
from ..errors import InvalidRequest, Unavailable
from ..settings import current
from ..tasks import Tasks

__all__ = ["accept", "count", "flush"]

FLUSH_SECONDS = 2.0

_counted: Counter[tuple[Kind, str]] = Counter()
_lock = threading.Lock()

log = logging.getLogger("mlaas")


def accept(request: ModelRequest, cause: CloudEvent, publish: bool) -> CloudEvent:
    """Record that a checkpoint is to be exported and published, and return the accepted event. Raises NotFound."""
    settings = current()
    tasks = Tasks(shared(settings))
    if known := tasks.known("model", cause):
        return known
    if not request.model.path:
        raise InvalidRequest(
            "what is exported is a checkpoint, which the catalog does not hold",
            field="model.path",
            remedy="Give `model.path` and `model.storage_type` of a folder with config.json and model.safetensors.",
        )
    models.check(request.model, settings=settings)
    return tasks.accept("model", request.model_dump(exclude_none=True), cause, publish=publish)


def count(succeeded: CloudEvent) -> None:
    """Count what answered a request. What was counted is written together, a little later, so a burst costs few writes."""
    if not isinstance(data := succeeded.data, Mapping):
        return
    result = data.get("result")
    answered_by = {**data, **(result if isinstance(result, Mapping) else {})}
    names: list[tuple[Kind, Any]] = [("models", answered_by.get("model")), ("indexes", answered_by.get("index"))]
    with _lock:
        first = not _counted
        _counted.update((kind, str(one["name"])) for kind, one in names if isinstance(one, Mapping) and one.get("name"))
        if first and _counted:
            timer = threading.Timer(FLUSH_SECONDS, flush)
            timer.daemon = True
            timer.start()


def flush() -> None:
    """Write what was counted."""
    with _lock:
        taken = dict(_counted)
        _counted.clear()
    catalog = Catalog(shared(current()))
    for (kind, name), times in taken.items():
        try:
            if catalog.versions(kind, name, limit=1):
                usage.record(catalog.documents, kind, name, "served", times)
        except Unavailable:
            log.warning("usage.not_counted", extra={"fields": {"served": times}})
