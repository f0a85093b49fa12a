"""The training job: `python -m mlaas.training.job`, started by JobSink with K_EVENT_PATH."""

from __future__ import annotations

import dataclasses
from typing import Any

from .. import jobs, storage
from ..contracts import TrainRequest, parse
from .publish import publish

__all__ = ["work"]


def work(job: jobs.Job) -> dict[str, Any]:
    """Fetch, train, evaluate, export, check parity, publish the version and register it."""
    job.report({"phase": "load", "percent": 0.0})
    from .run import Report, Sources, train  # torch, and so after the task says that it runs

    settings, request = job.settings, parse(TrainRequest, job.run.request)
    assert request.model.path, "accepted with a path"
    tokenizer = request.tokenizer
    sources = Sources(
        checkpoint=storage.fetch(request.model.path, request.model.storage_type, settings=settings, revision=request.model.revision),
        tokenizer=storage.fetch(tokenizer.path, tokenizer.storage_type, settings=settings) if tokenizer else None,
        table=storage.fetch(request.dataset.path, request.dataset.storage_type, settings=settings),
    )

    def report(report: Report) -> None:
        progress = {name: value for name, value in dataclasses.asdict(report).items() if name != "history" and value is not None}
        job.report(progress, history=report.history)

    with jobs.workspace(settings) as folder:
        outcome = train(request, sources, folder / "bundle", report)
        job.report({"phase": "publish", "percent": 100.0})
        entry = publish(outcome.bundle, request.model_save, settings, evaluation=outcome.evaluation, task_id=job.run.task_id)
    model = {name: entry[name] for name in ("name", "version", "digest", "objective", "path", "storage_type")}
    return {"result": {"model": model}, "history": outcome.history, "evaluation": outcome.evaluation, "dataset": outcome.dataset}


if __name__ == "__main__":
    jobs.exit_with(work)
