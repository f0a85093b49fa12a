"""Index builds: accepted by the index function, done by a job (`python -m mlaas.indexing`), repeated when a model changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from cloudevents.http import CloudEvent

from . import datasets, embedder, jobs, models, references, storage, vector_store
from .catalog import Catalog, name_of
from .contracts import IndexAfter, IndexRequest, ModelRef, parse
from .documents import shared
from .settings import current
from .tasks import Tasks

__all__ = ["accept", "build", "follow"]

MAX_METADATA_CHARACTERS = 2000


def accept(request: IndexRequest, cause: CloudEvent, publish: bool) -> CloudEvent:
    """Record an index build and return its accepted event. Raises NotFound for a model or data set that is not there."""
    settings = current()
    tasks = Tasks(shared(settings))
    if known := tasks.known("index", cause):
        return known
    models.check(request.model, settings=settings)
    models.check_dataset(request.dataset.path, request.dataset.storage_type, part="dataset", settings=settings)
    return tasks.accept("index", request.model_dump(exclude_none=True), cause, publish=publish)


def follow(succeeded: CloudEvent) -> None:
    """After a training: accept a build for each index that the training asked for, and for each that follows its model."""
    settings = current()
    tasks, catalog = Tasks(shared(settings)), Catalog(shared(settings))
    for name, request in _followers(succeeded.data, catalog):
        tasks.accept("index", request, succeeded, part=name, publish=True)


def _followers(task: dict[str, Any], catalog: Catalog) -> Iterator[tuple[str, dict[str, Any]]]:
    model = task["result"]["model"]
    asked = [parse(IndexAfter, item) for item in task["request"].get("index_after", [])]
    names = set()
    for item in asked:
        request = IndexRequest(model=item.model or ModelRef(name=model["name"]), **item.model_dump(exclude={"model"}))
        name = name_of(request.vector_store_save.path, request.vector_store_save.name)
        names.add(name)
        yield name, request.model_dump(exclude_none=True)
    for entry in catalog.followers(model["name"]):
        if entry["name"] not in names:
            yield entry["name"], entry["request"]


def build(job: jobs.Job) -> dict[str, Any]:
    """Embed the documents of the request, build a vector store and publish it as a new version."""
    settings = job.settings
    request = parse(IndexRequest, job.run.request)
    job.report({"phase": "load", "percent": 0.0})
    loaded = job.persist(lambda: models.load(request.model, request.tokenizer, settings=settings, progress=job.downloading))
    table = job.persist(lambda: references.fetch(request.dataset, part="dataset", settings=settings, progress=job.downloading))
    total = sum(1 for _ in datasets.read(table, [request.dataset.loader_kwargs.page_content_column]))

    def progress(done: int) -> None:
        job.report({"phase": "embed", "percent": round(95.0 * done / max(total, 1), 1), "documents": done, "of": total})

    with jobs.workspace(settings) as folder:
        manifest = vector_store.build(
            folder / "store",
            _documents(table, request),
            lambda texts: embedder.embed(loaded.model, texts)[0],
            model_digest=loaded.version.digest,
            model=_built_by(request.model, loaded.version.model_dump(exclude_none=True)),
            provenance={"request": job.run.request, "task_id": job.run.task_id},
            progress=progress,
            choice=_choice(request),
        )
        job.report({"phase": "publish", "percent": 96.0})
        return job.persist(lambda: _publish(job, request, folder / "store", manifest))


def _publish(job: jobs.Job, request: IndexRequest, folder: Path, manifest: vector_store.Manifest) -> dict[str, Any]:
    save = request.vector_store_save
    path = storage.publish(folder, save.path, save.storage_type, manifest.digest[:16], settings=job.settings)
    entry = Catalog(shared(job.settings)).publish(
        "indexes",
        name_of(save.path, save.name),
        manifest.digest,
        {
            "path": path,
            "storage_type": save.storage_type,
            "count": manifest.count,
            "dimension": manifest.dimension,
            "index_types": manifest.index_types,
            "recall": manifest.measured_recall,
            "model_digest": manifest.model_digest,
            "model_name": None if request.model.revision else request.model.name,  # a pinned version has nothing to follow
            "request": job.run.request,
            "task_id": job.run.task_id,
        },
    )
    index = {
        name: entry[name] for name in ("name", "version", "digest", "path", "storage_type", "count", "dimension", "index_types", "recall")
    }
    return {"result": {"index": index, "model": manifest.model}, "dataset": {"samples_train": manifest.count}}


def _choice(request: IndexRequest) -> vector_store.Choice:
    asked = vector_store.Choice(request.index_type)
    return asked if request.recall is None else replace(asked, recall=request.recall)


def _documents(table: Path, request: IndexRequest) -> Iterable[vector_store.Document]:
    columns = request.dataset.loader_kwargs
    wanted = [columns.page_content_column, *([columns.id_column] if columns.id_column else [])]
    for number, row in enumerate(datasets.read(table, wanted, keep_others=True)):
        text = str(row.pop(columns.page_content_column) or "")
        key = str(row[columns.id_column]) if columns.id_column else str(number)
        metadata = {name: value for name, value in row.items() if len(str(value)) <= MAX_METADATA_CHARACTERS}
        if text.strip():
            yield vector_store.Document(key, text, metadata)


def _built_by(ref: ModelRef, version: dict[str, Any]) -> dict[str, Any]:
    """How the index names the model to search it with: the very version of a catalog entry, or the path."""
    if ref.name:
        return {"name": version["name"], "revision": version["version"], "digest": version["digest"]}
    return {"path": ref.path, "storage_type": ref.storage_type, "revision": ref.revision, "digest": version["digest"]}


if __name__ == "__main__":
    jobs.exit_with(build)
