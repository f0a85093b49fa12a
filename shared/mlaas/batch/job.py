"""The job: predicts for a file chunk by chunk, keeps each chunk in a draft, and makes the result of them.

Killed at any point, it goes on after the last whole chunk. The result is recorded in the task before the draft is removed, so
that a run that comes later has either the one or the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from .. import events, jobs, references, storage
from ..contracts import DatasetRef, parse
from ..errors import InvalidRequest
from ..storage.manifests import sha256_of
from ..tasks import Cancelled, Superseded
from . import predictors, rows
from .accept import CONTRACTS, BatchRequest, part_of
from .drafts import Draft

__all__ = ["predict"]

FORMAT_VERSION = 1  # of what a draft holds: parts of another release are not mixed in


@dataclass(frozen=True, kw_only=True)
class _Work:
    """A request being worked on: `table` is the file, `chunk_rows` how many rows are kept at once, `folder` is to work in."""

    job: jobs.Job
    request: BatchRequest
    texts: DatasetRef
    predictor: predictors.Predictor
    table: Path
    chunk_rows: int
    folder: Path

    def rows(self) -> Iterator[rows.Row]:
        """The file's rows, from the first."""
        return rows.read(self.table, self.texts.loader_kwargs, part_of(self.request))


def predict(job: jobs.Job) -> dict[str, Any]:
    """Predict for the file of the request; the task's result refers to what was published. Raises InvalidRequest for bad rows."""
    known = events.parse_type(job.run.accepted["type"])
    assert known, "a task is accepted by a function of the platform"
    request = parse(CONTRACTS[known[0]], job.run.request)
    path, storage_type = _output(job, request)
    draft = Draft(path=f"{path}/.draft-{job.run.task_id}", storage_type=storage_type, job=job)
    task = job.tasks.get(job.run.task_id)
    if not task.get("result"):
        try:
            task = _publish(job, request, draft, path)
        except (InvalidRequest, Cancelled):
            _give_up(job, draft)
            raise
        job.persist(lambda: job.tasks.report(job.run, **task))
    draft.remove()
    return {"result": task["result"], "dataset": task["dataset"]}


def _output(job: jobs.Job, request: BatchRequest) -> tuple[str, str]:
    output = request.output
    if output and output.path:
        return output.path.rstrip("/"), output.storage_type or "local"
    return references.in_exchange(job.settings, "results", job.run.task_id)


def _give_up(job: jobs.Job, draft: Draft) -> None:
    """Remove the draft of a task that has ended, unless another run has the task: then it is that run's."""
    try:
        job.tasks.report(job.run)
    except Superseded:
        return
    except Cancelled:
        pass
    draft.remove()


def _publish(job: jobs.Job, request: BatchRequest, draft: Draft, path: str) -> dict[str, Any]:
    texts, part = request.dataset_of_texts, part_of(request)
    assert texts, "only a request with a data set is accepted"
    job.report({"phase": "load", "percent": 0.0})
    predictor = job.persist(lambda: predictors.load(request, job))
    table = job.persist(lambda: references.fetch(texts, part=part, settings=job.settings, progress=job.downloading))
    size = rows.rows_of_chunk(job.settings.batch_rows, request.top_k)
    with jobs.workspace(job.settings) as folder:
        work = _Work(job=job, request=request, texts=texts, predictor=predictor, table=table, chunk_rows=size, folder=folder)
        digest = references.digest(table)
        total, empty = _count(work)
        parts = _predict_all(work, draft, digest, total)
        if references.digest(table) != digest:
            raise InvalidRequest(
                "the data set changed while it was read", field=f"{part}.path", remedy="Send the request again; leave the file as it is."
            )
        file = folder / f"predictions.{request.output.format if request.output else 'parquet'}"
        draft.merge(parts, predictors.schema(request, predictor), file, partial(_merged, job, parts))
        return {"result": _result(work, draft, file, path, total), "dataset": {"rows": total, "rows_without_text": empty}}


def _count(work: _Work) -> tuple[int, int]:
    """How many rows there are, and how many of them without text: all are read once before anything is predicted for any."""
    count = empty = 0
    for row in work.rows():
        count += 1
        empty += not (row.text and row.text.strip())
        if count % work.chunk_rows == 0:
            work.job.report({"phase": "read", "percent": 0.0, "rows": count})
    return count, empty


def _predict_all(work: _Work, draft: Draft, digest: str, total: int) -> int:
    """Predict for what the draft does not hold yet; how many parts it has then."""
    import pyarrow

    record = {
        "format_version": FORMAT_VERSION,
        "request": work.job.run.request,
        "dataset_sha256": digest,
        "models": work.predictor.digests,
        "chunk_rows": work.chunk_rows,
    }
    kept = draft.resume(record, work.folder)
    schema = predictors.schema(work.request, work.predictor)
    parts = done = 0
    found = rows.chunks(work.rows(), work.chunk_rows)
    for chunk in islice(found, kept):
        parts, done = parts + 1, done + len(chunk)
    progress = _progress(work.job, done, total)
    for chunk in found:
        answers = rows.predicted(chunk, work.predictor, part_of(work.request), partial(progress, done))
        draft.add(parts, pyarrow.Table.from_pylist(answers, schema=schema), work.folder)
        parts, done = parts + 1, done + len(chunk)
    return parts


def _result(work: _Work, draft: Draft, file: Path, path: str, total: int) -> dict[str, Any]:
    """Publish `file` as an immutable version; the reference to it, and what predicted."""
    digest = sha256_of(file)
    published = file.parent / "published"
    published.mkdir()
    moved = file.rename(published / file.name)
    job, settings, version = work.job, work.job.settings, digest[:16]
    place = job.persist(
        lambda: storage.publish(published, path, draft.storage_type, version, settings=settings, progress=partial(_publishing, job))
    )
    predictions = {
        "path": f"{place}/{file.name}",
        "storage_type": draft.storage_type,
        "format": file.suffix.removeprefix("."),
        "rows": total,
        "size": moved.stat().st_size,
        "sha256": digest,
    }
    return {"predictions": predictions, **{name: one.model_dump(exclude_none=True) for name, one in work.predictor.versions.items()}}


def _progress(job: jobs.Job, start: int, total: int) -> Callable[[int, int], None]:
    """Takes the rows before a chunk and those done of it; reports rows, share, rows a second in this run, and seconds left."""
    began = time.monotonic()

    def report(before: int, more: int) -> None:
        done = before + more
        rate = (done - start) / max(time.monotonic() - began, 1e-3)
        share = round(95.0 * done / max(total, 1), 1)
        left = round((total - done) / rate, 1) if rate else None
        figures = {"rows": done, "of": total, "rows_per_second": round(rate, 1), "eta": left}
        job.report({"phase": "predict", "percent": share, **figures})

    return report


def _merged(job: jobs.Job, parts: int, done: int) -> None:
    job.report({"phase": "merge", "percent": round(95.0 + 3.0 * done / parts, 1)})


def _publishing(job: jobs.Job, done: int, total: int) -> None:
    job.report({"phase": "publish", "percent": 98.0, "bytes": done, "of_bytes": total})
