"""The index job: build a store, or update one, and publish it as a new version."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from .. import jobs, storage, vector_store
from ..catalog import Catalog, Overtaken, name_of
from ..catalog.columns import Columns
from ..contracts import IndexRequest, IndexUpdate, parse
from ..documents import shared
from ..errors import Unavailable
from ..storage import manifests
from .shards import Shards
from .source import Source

__all__ = ["build"]

UPDATES_AT_ONCE = 20
LOOKED_AT = 100  # documents whose metadata say what an index can be filtered by


def build(job: jobs.Job) -> dict[str, Any]:
    """Embed the documents of the request, and publish a vector store of them, or the one that they update, as a new version."""
    request = parse(IndexRequest, job.run.request)
    job.report({"phase": "load", "percent": 0.0})
    source = job.persist(lambda: Source.load(request, job.settings, job.downloading))
    if request.update is None:
        return _build(job, source)
    for _ in range(UPDATES_AT_ONCE):
        with jobs.workspace(job.settings) as folder, suppress(Overtaken):  # by another update: this one is made again, from that
            return _update(job, source, request.update, folder / "store")
    raise Unavailable("others update this index all the time", field="vector_store_save", remedy="Send the request again later.")


def _build(job: jobs.Job, source: Source) -> dict[str, Any]:
    total = source.count()
    shards = Shards.of(source, job.run.task_id, total, job.settings)
    with jobs.workspace(job.settings) as folder:
        if shards.number > 1:
            manifest = shards.combined(folder, job, _about(job, source))
        else:
            progress = _progress(job, total)
            manifest = vector_store.build(folder / "store", source.documents(), source.embed, progress=progress, **_about(job, source))
        done = _published(job, source, folder / "store", manifest)
    if shards.number > 1:
        shards.remove(job)
    return done


def _update(job: jobs.Job, source: Source, update: IndexUpdate, folder: Path) -> dict[str, Any]:
    save = source.request.vector_store_save
    base = Catalog(shared(job.settings)).resolve("indexes", name_of(save.path, save.name))
    path, storage_type = base["path"], base["storage_type"]
    place = job.persist(lambda: storage.fetch(path, storage_type, settings=job.settings, progress=job.downloading))
    changes = vector_store.Changes(documents=source.documents, deleted=update.delete or (), compact=update.compact)
    progress = _progress(job, source.count())
    manifest = vector_store.update(place, folder, changes, source.embed, progress=progress, **_about(job, source))
    if manifest is None:
        return _result(base, base["count"], source.model)
    return _published(job, source, folder, manifest, after=base["version"])


def _about(job: jobs.Job, source: Source) -> dict[str, Any]:
    return source.about({"request": job.run.request, "task_id": job.run.task_id})


def _progress(job: jobs.Job, total: int) -> Callable[[int], None]:
    def progress(done: int) -> None:
        percent = round(min(95.0 * done / max(total, 1), 95.0), 1)
        job.report({"phase": "embed", "percent": percent, "documents": done, "of": max(total, done)})

    return progress


def _published(job: jobs.Job, source: Source, folder: Path, manifest: vector_store.Manifest, after: str | None = None) -> dict[str, Any]:
    """Publish the store. Raises Overtaken where the latest version is not `after` any more."""
    job.report({"phase": "publish", "percent": 96.0})
    return job.persist(lambda: _publish(job, source.request, folder, manifest, after))


def _publish(job: jobs.Job, request: IndexRequest, folder: Path, manifest: vector_store.Manifest, after: str | None) -> dict[str, Any]:
    save = request.vector_store_save
    looked = _looked(folder)
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
            "bytes": manifests.size_of(folder, manifests.files_of(folder)),
            "columns": looked.columns,
            "preview": looked.preview,
            "model_digest": manifest.model_digest,
            "model_name": None if request.model.revision else request.model.name,  # a pinned version has nothing to follow
            "request": job.run.request,
            "task_id": job.run.task_id,
        },
        after=after,
    )
    return _result(entry, manifest.count, manifest.model)


def _looked(folder: Path) -> Columns:
    """The ids, texts and metadata of some documents, to be shown."""
    looked = Columns()
    with closing(vector_store.VectorStore.open(folder)) as store:
        for document in store.head(LOOKED_AT):
            looked.add({"id": document.id, "text": document.text, **document.metadata})
    return looked


def _result(entry: dict[str, Any], count: int, model: dict[str, Any]) -> dict[str, Any]:
    told = ("name", "version", "digest", "path", "storage_type", "count", "dimension", "index_types", "recall")
    index = {name: entry[name] for name in told if name in entry}
    return {"result": {"index": index, "model": model}, "dataset": {"samples_train": count}}
