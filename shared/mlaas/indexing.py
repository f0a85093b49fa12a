"""Index builds: accepted by the index function, done by a job (`python -m mlaas.indexing`), repeated when a model changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from cloudevents.http import CloudEvent
from numpy.typing import NDArray

from . import datasets, embedder, jobs, models, references, storage, vector_store
from .catalog import Catalog, Overtaken, name_of
from .contracts import IndexAfter, IndexRequest, IndexUpdate, LoaderKwargs, ModelRef, parse
from .documents import shared
from .errors import NotFound, Unavailable
from .settings import Settings, current
from .tasks import Tasks

__all__ = ["accept", "build", "follow"]

MAX_METADATA_CHARACTERS = 2000
UPDATES_AT_ONCE = 20


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
            yield entry["name"], _repeated(entry["request"])


def _repeated(request: dict[str, Any]) -> dict[str, Any]:
    """What builds the index again: of one that was updated, from the documents that it holds and not from those of the last update."""
    if "update" not in request:
        return request
    return {**{name: value for name, value in request.items() if name != "dataset"}, "update": {}}


def build(job: jobs.Job) -> dict[str, Any]:
    """Embed the documents of the request, and publish a vector store of them, or the one that they update, as a new version."""
    request = parse(IndexRequest, job.run.request)
    job.report({"phase": "load", "percent": 0.0})
    loaded = job.persist(lambda: models.load(request.model, request.tokenizer, settings=job.settings, progress=job.downloading))
    work = _Work(job, request, loaded, job.persist(lambda: _fetched(job, request)))
    if request.update is None:
        with jobs.workspace(job.settings) as folder:
            return work.published(folder / "store", vector_store.build(folder / "store", work.documents(), work.embed, **work.about()))
    for _ in range(UPDATES_AT_ONCE):
        with jobs.workspace(job.settings) as folder, suppress(Overtaken):  # by another update: this one is made again, from that
            return _update(work, request.update, folder / "store")
    raise Unavailable("others update this index all the time", field="vector_store_save", remedy="Send the request again later.")


def _update(work: _Work, update: IndexUpdate, folder: Path) -> dict[str, Any]:
    settings, save = work.job.settings, work.request.vector_store_save
    base = Catalog(shared(settings)).resolve("indexes", name_of(save.path, save.name))
    path, storage_type = base["path"], base["storage_type"]
    place = work.job.persist(lambda: storage.fetch(path, storage_type, settings=settings, progress=work.job.downloading))
    changes = vector_store.Changes(documents=work.documents, deleted=update.delete or (), compact=update.compact)
    manifest = vector_store.update(place, folder, changes, work.embed, **work.about())
    if manifest is None:
        return _result(base, base["count"], work.model)
    return work.published(folder, manifest, after=base["version"])


@dataclass(frozen=True)
class _Work:
    """What a build and an update have in common."""

    job: jobs.Job
    request: IndexRequest
    loaded: models.LoadedModel
    table: Path | None

    @property
    def model(self) -> dict[str, Any]:
        """How the index names the model to search it with."""
        return _built_by(self.request.model, self.loaded.version.model_dump(exclude_none=True))

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of texts."""
        return embedder.embed(self.loaded.model, texts)[0]

    def documents(self) -> Iterator[vector_store.Document]:
        """The documents of the request, each time anew."""
        if self.table and self.request.dataset:
            yield from _documents(self.table, self.request.dataset.loader_kwargs)

    def about(self) -> dict[str, Any]:
        """What goes into the manifest, how the index is chosen, and who hears of the progress."""
        columns = self.request.dataset.loader_kwargs if self.request.dataset else None
        total = sum(1 for _ in datasets.read(self.table, [columns.page_content_column])) if self.table and columns else 0

        def progress(done: int) -> None:
            percent = round(min(95.0 * done / max(total, 1), 95.0), 1)
            self.job.report({"phase": "embed", "percent": percent, "documents": done, "of": max(total, done)})

        return {
            "model_digest": self.loaded.version.digest,
            "model": self.model,
            "provenance": {"request": self.job.run.request, "task_id": self.job.run.task_id},
            "choice": _choice(self.request),
            "progress": progress,
        }

    def published(self, folder: Path, manifest: vector_store.Manifest, after: str | None = None) -> dict[str, Any]:
        """Publish the store. Raises Overtaken where the latest version is not `after` any more."""
        self.job.report({"phase": "publish", "percent": 96.0})
        return self.job.persist(lambda: _publish(self.job, self.request, folder, manifest, after))


def _fetched(job: jobs.Job, request: IndexRequest) -> Path | None:
    if request.dataset is None:
        return None
    return references.fetch(request.dataset, part="dataset", settings=job.settings, progress=job.downloading)


def _publish(job: jobs.Job, request: IndexRequest, folder: Path, manifest: vector_store.Manifest, after: str | None) -> dict[str, Any]:
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
        after=after,
    )
    return _result(entry, manifest.count, manifest.model)


def _result(entry: dict[str, Any], count: int, model: dict[str, Any]) -> dict[str, Any]:
    told = ("name", "version", "digest", "path", "storage_type", "count", "dimension", "index_types", "recall")
    index = {name: entry[name] for name in told if name in entry}
    return {"result": {"index": index, "model": model}, "dataset": {"samples_train": count}}


def _choice(request: IndexRequest) -> vector_store.Choice:
    asked = vector_store.Choice(request.index_type)
    return asked if request.recall is None else replace(asked, recall=request.recall)


def _documents(table: Path, columns: LoaderKwargs) -> Iterator[vector_store.Document]:
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
