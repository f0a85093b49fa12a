"""What the index function does: accept builds, and after a training those that follow from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cloudevents.http import CloudEvent

from .. import models
from ..catalog import Catalog, name_of
from ..contracts import IndexAfter, IndexRequest, ModelRef, parse
from ..documents import shared
from ..errors import NotFound
from ..settings import Settings, current
from ..tasks import Ownership, Tasks

__all__ = ["accept", "follow"]


def accept(request: IndexRequest, cause: CloudEvent, publish: bool) -> CloudEvent:
    """Record an index build and return its accepted event. Raises NotFound for a model or data set that is not there."""
    settings = current()
    tasks = Tasks(shared(settings))
    if known := tasks.known("index", cause):
        return known
    models.check(request.model, settings=settings)
    if request.dataset:
        models.check_dataset(request.dataset.path, request.dataset.storage_type, part="dataset", settings=settings)
    if request.update:
        _check_base(request, settings)
    return tasks.accept("index", request.model_dump(exclude_none=True), cause, publish=publish)


def _check_base(request: IndexRequest, settings: Settings) -> None:
    name = name_of(request.vector_store_save.path, request.vector_store_save.name)
    if not Catalog(shared(settings)).versions("indexes", name, limit=1):
        raise NotFound(f"there is no index `{name}` to update", field="vector_store_save", remedy="Build it first, without `update`.")


def follow(succeeded: CloudEvent) -> None:
    """After a training: accept a build for each index that the training asked for, and for each that follows its model."""
    settings = current()
    tasks, catalog = Tasks(shared(settings)), Catalog(shared(settings))
    training = tasks.ownership(succeeded.data["task_id"])
    for name, request, asked in _followers(succeeded.data, catalog):
        entry = catalog.entries.get("indexes", name)
        ownership = training if asked else Ownership(owner=entry.owner if entry else None)
        tasks.accept("index", request, succeeded, part=name, publish=True, ownership=ownership)


def _followers(task: dict[str, Any], catalog: Catalog) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Name and request of each index, and whether the training asked for it; the others belong to whom they did before."""
    model = task["result"]["model"]
    asked = [parse(IndexAfter, item) for item in task["request"].get("index_after", [])]
    names = set()
    for item in asked:
        request = IndexRequest(model=item.model or ModelRef(name=model["name"]), **item.model_dump(exclude={"model"}))
        name = name_of(request.vector_store_save.path, request.vector_store_save.name)
        names.add(name)
        yield name, request.model_dump(exclude_none=True), True
    for entry in catalog.followers(model["name"]):
        if entry["name"] not in names:
            yield entry["name"], _repeated(entry["request"]), False


def _repeated(request: dict[str, Any]) -> dict[str, Any]:
    """What builds the index again: of one that was updated, from the documents that it holds and not from those of the last update."""
    if "update" not in request:
        return request
    return {**{name: value for name, value in request.items() if name != "dataset"}, "update": {}}
