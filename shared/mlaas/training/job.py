"""The training job: `python -m mlaas.training.job`, started by JobSink with K_EVENT_PATH."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from .. import jobs, references, storage, tracing
from ..contracts import ModelRequest, TrainRequest, parse
from ..tasks import Cancelled
from .card import Lineage
from .drafts import StoredDrafts
from .outcome import Outcome
from .progress import Report
from .publish import export_and_publish, publish
from .search_job import forget_running, search

__all__ = ["work"]


def work(job: jobs.Job) -> dict[str, Any]:
    """Fetch, train, evaluate, export, check parity, publish the version and register it; or export a checkpoint as it is."""
    if job.capability == "model":
        return _export(job)
    job.report({"phase": "load", "percent": 0.0})
    settings, request, task_id = job.settings, parse(TrainRequest, job.run.request), job.run.task_id
    sources = _fetched(job, request)
    job.report({"phase": "load", "percent": 0.0})  # torch and transformers, which take longer than most downloads
    with jobs.workspace(settings) as folder:
        drafts = StoredDrafts(request.model_save, task_id, settings, folder, grace=settings.grace_seconds)
        try:
            outcome = _train(job, request, sources, folder, drafts)
        except Cancelled:
            if job.tasks.get(task_id)["stats"]["attempts"] == job.run.attempt:  # else they are another run's by now
                drafts.clear()
                forget_running(job, request, folder)
            raise
        job.report({"phase": "publish", "percent": 100.0})
        span = tracing.current()
        lineage = Lineage(task_id=task_id, trace_id=span.trace_id if span else None, data_sha256=references.digest(sources["table"]))
        entry = job.persist(lambda: publish(outcome, request.model_save, settings, lineage))
        drafts.clear()
    model = _published(entry)
    more = {"stopped": outcome.stopped, "search": outcome.search}
    result = {"model": model} | {name: value for name, value in more.items() if value}
    return {"result": result, "history": outcome.history, "evaluation": outcome.evaluation, "dataset": outcome.dataset}


def _export(job: jobs.Job) -> dict[str, Any]:
    job.report({"phase": "export", "percent": 0.0})
    request = parse(ModelRequest, job.run.request)
    assert request.model.objective, "the contract asks for it"
    entry = export_and_publish(request.model, request.model.objective, request.model_save, job.settings, job.downloading)
    return {"result": {"model": _published(entry)}}


def _published(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: entry[name] for name in ("name", "version", "digest", "objective", "path", "storage_type")}


def _train(job: jobs.Job, request: TrainRequest, sources: dict[str, Any], folder: Path, drafts: StoredDrafts) -> Outcome:
    """The run that the request's model asks for, or the search for the best one."""

    def report(report: Report) -> None:
        progress = {name: value for name, value in dataclasses.asdict(report).items() if name != "history" and value is not None}
        job.report(progress, history=report.history)

    if request.model.architecture:
        from . import pipelines

        return pipelines.train(request, sources["table"], folder / "bundle", report)
    if request.search:
        return search(job, request, sources, folder, drafts)
    from .run import Sources, train  # torch, after the task says that it runs

    return train(request, Sources(**sources), folder / "bundle", report, drafts.of)


def _fetched(job: jobs.Job, request: TrainRequest) -> dict[str, Any]:
    """The paths of the `Sources` of a run by name; of `table` alone where it starts from no checkpoint."""

    def fetch(path: str, storage_type: str, revision: str | None = None) -> Path:
        progress = job.downloading
        return job.persist(lambda: storage.fetch(path, storage_type, settings=job.settings, revision=revision, progress=progress))

    table = job.persist(lambda: references.fetch(request.dataset, part="dataset", settings=job.settings, progress=job.downloading))
    if request.model.architecture:
        return {"table": table}
    assert request.model.path, "accepted with a path"
    tokenizer = request.tokenizer
    return {
        "checkpoint": fetch(request.model.path, request.model.storage_type, request.model.revision),
        "tokenizer": fetch(tokenizer.path, tokenizer.storage_type) if tokenizer and tokenizer.path else None,
        "table": table,
    }


if __name__ == "__main__":
    jobs.exit_with(work)
