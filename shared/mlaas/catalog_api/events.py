"""What the catalog does with events: counts what was served, and accepts checkpoints that are to become models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudevents.http import CloudEvent

from .. import models, served
from ..catalog import Kind
from ..contracts import ModelRequest
from ..documents import shared
from ..errors import InvalidRequest
from ..settings import current
from ..tasks import Tasks

__all__ = ["accept", "count"]


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
    """Count what answered a request."""
    if not isinstance(data := succeeded.data, Mapping):
        return
    result = data.get("result")
    answered_by = {**data, **(result if isinstance(result, Mapping) else {})}
    names: list[tuple[Kind, Any]] = [("models", answered_by.get("model")), ("indexes", answered_by.get("index"))]
    served.count((kind, str(one["name"])) for kind, one in names if isinstance(one, Mapping) and one.get("name"))
