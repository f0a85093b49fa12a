"""What the train function does: check a request, record the task, and say that it is accepted. Imports no torch."""

from __future__ import annotations

from cloudevents.http import CloudEvent

from .. import models
from ..contracts import TrainRequest
from ..documents import shared
from ..errors import InvalidRequest
from ..settings import current
from ..tasks import Tasks
from .searchable import check_search
from .supported import check, check_architecture, check_columns, check_data, check_metric, check_processes, check_scratch, check_variants

__all__ = ["accept"]


def accept(request: TrainRequest, cause: CloudEvent, publish: bool) -> CloudEvent:
    """Record a training and return its accepted event, the same for a redelivered `cause`.

    Raises InvalidRequest for an objective that cannot be trained, NotFound for a model or data set that is not there.
    """
    settings = current()
    tasks = Tasks(shared(settings))
    if known := tasks.known("train", cause):
        return known
    check(str(request.model.objective))
    check_architecture(request)
    check_columns(request)
    check_data(request)
    check_metric(request)
    check_scratch(request)
    check_variants(request)
    check_processes(request)
    check_search(request)
    if not request.model.path and not request.model.architecture:
        raise InvalidRequest(
            "a training starts from a checkpoint, which the catalog does not hold",
            field="model.path",
            remedy="Give `model.path` and `model.storage_type` of a checkpoint with config.json and model.safetensors.",
        )
    if not request.model.architecture:
        models.check(request.model, settings=settings)
    models.check_dataset(request.dataset.path, request.dataset.storage_type, part="dataset", settings=settings)
    for number, item in enumerate(request.index_after):
        models.check_dataset(item.dataset.path, item.dataset.storage_type, part=f"index_after.{number}.dataset", settings=settings)
        if item.model:
            models.check(item.model, settings=settings)
    return tasks.accept("train", request.model_dump(exclude_none=True), cause, publish=publish)
