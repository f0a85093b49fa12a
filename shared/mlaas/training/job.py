"""The training job: `python -m mlaas.training.job`, started by JobSink with K_EVENT_PATH."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import jobs, references, storage, tracing
from ..contracts import TrainRequest, parse
from ..tasks import Cancelled
from .card import Lineage
from .drafts import StoredDrafts
from .fingerprint import content_digest
from .outcome import Outcome
from .progress import Report
from .publish import publish

__all__ = ["work"]


def work(job: jobs.Job) -> dict[str, Any]:
    """Fetch, train, evaluate, export, check parity, publish the version and register it."""
    job.report({"phase": "load", "percent": 0.0})
    settings, request = job.settings, parse(TrainRequest, job.run.request)

    def fetch(path: str, storage_type: str, revision: str | None = None) -> Path:
        progress = job.downloading
        return job.persist(lambda: storage.fetch(path, storage_type, settings=settings, revision=revision, progress=progress))

    table = job.persist(lambda: references.fetch(request.dataset, part="dataset", settings=settings, progress=job.downloading))

    def report(report: Report) -> None:
        progress = {name: value for name, value in dataclasses.asdict(report).items() if name != "history" and value is not None}
        job.report(progress, history=report.history)

    with jobs.workspace(settings) as folder:
        drafts = StoredDrafts(request.model_save, job.run.task_id, settings, folder, grace=settings.grace_seconds)
        try:
            outcome = _train(request, table, fetch, folder / "bundle", report, drafts)
        except Cancelled:
            if job.tasks.get(job.run.task_id)["stats"]["attempts"] == job.run.attempt:  # else they are another run's by now
                drafts.clear()
            raise
        job.report({"phase": "publish", "percent": 100.0})
        span = tracing.current()
        lineage = Lineage(task_id=job.run.task_id, trace_id=span.trace_id if span else None, data_sha256=content_digest(table))
        entry = job.persist(lambda: publish(outcome, request.model_save, settings, lineage))
        drafts.clear()
    model = {name: entry[name] for name in ("name", "version", "digest", "objective", "path", "storage_type")}
    result = {"model": model} | ({"stopped": outcome.stopped} if outcome.stopped else {})
    return {"result": result, "history": outcome.history, "evaluation": outcome.evaluation, "dataset": outcome.dataset}


def _train(
    request: TrainRequest, table: Path, fetch: Callable[..., Path], out: Path, report: Callable[[Report], None], drafts: StoredDrafts
) -> Outcome:
    """The run that the request's model asks for. torch is imported here, after the task says that it runs."""
    if request.model.architecture:
        from . import pipelines

        return pipelines.train(request, table, out, report)
    from .run import Sources, train

    assert request.model.path, "accepted with a path"
    tokenizer = request.tokenizer
    sources = Sources(
        checkpoint=fetch(request.model.path, request.model.storage_type, request.model.revision),
        tokenizer=fetch(tokenizer.path, tokenizer.storage_type) if tokenizer and tokenizer.path else None,
        table=table,
    )
    return train(request, sources, out, report, drafts.of)


if __name__ == "__main__":
    jobs.exit_with(work)
