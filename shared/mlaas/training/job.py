"""The training job: `python -m mlaas.training.job`, started by JobSink with K_EVENT_PATH."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import jobs, references, tracing
from ..contracts import ModelRequest, TrainRequest, parse
from ..settings import Settings, current
from ..tasks import Cancelled
from .card import Lineage
from .drafts import StoredDrafts
from .fetching import fetched
from .outcome import Outcome
from .progress import Report
from .publish import export_and_publish, publish
from .search_job import forget_running, search

if TYPE_CHECKING:
    from .crew import Crew

__all__ = ["main", "work"]


def work(job: jobs.Job, crews: list[Crew] | None = None) -> dict[str, Any]:
    """Fetch, train, evaluate, export, check parity, publish the version and register it; or export a checkpoint as it is.

    `crews` gets the processes that share the training.
    """
    if job.capability == "model":
        return _export(job)
    job.report({"phase": "load", "percent": 0.0})
    settings, request, task_id = job.settings, parse(TrainRequest, job.run.request), job.run.task_id
    crew = _crew(request, settings)
    if crew and crews is not None:
        crews.append(crew)
    sources = fetched(request, settings, job.downloading, job.persist)
    job.report({"phase": "load", "percent": 0.0})  # torch and transformers, which take longer than most downloads
    with jobs.workspace(settings) as folder:
        drafts = StoredDrafts(request.model_save, task_id, settings, folder, grace=settings.grace_seconds)
        try:
            outcome = _train(job, request, sources, folder, drafts, crew)
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


def _train(job: jobs.Job, request: TrainRequest, sources: dict[str, Any], folder: Path, drafts: StoredDrafts, crew: Crew | None) -> Outcome:
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

    return train(request, Sources(**sources), folder / "bundle", report, drafts.of, crew=crew)


def _crew(request: TrainRequest, settings: Settings) -> Crew | None:
    """The processes that share the training: those that torchrun or a Job started, or as many as it asks for; None for one alone."""
    if request.model.architecture or request.search or (settings.rank is None and request.model_train.processes == 1):
        return None
    from .crew import Started, Summoned  # torch, after the task says that it runs

    return Started(request.model_train.processes) if settings.rank is None else Summoned(settings)


def main() -> int:
    """Run as the first rank of the training, or as the only one, or as one of the others; the process' exit status."""
    if current().rank:
        from .rank import main as serve

        return serve(launched=False)
    crews: list[Crew] = []
    status = jobs.main(lambda job: work(job, crews))
    for crew in crews:
        crew.close(again=status != 0)
    return status


if __name__ == "__main__":
    sys.exit(main())
