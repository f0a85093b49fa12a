"""A training job whose request asks for a search: where the search's notes go, and what its result says. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import jobs
from ..contracts import TrainRequest
from .drafts import StoredDrafts
from .kept import BestModel
from .outcome import Outcome
from .search import Notes, Search
from .searchable import direction_of
from .trial_process import Processes
from .trials import Trial, best_of, counts

__all__ = ["forget_running", "search"]


def search(job: jobs.Job, request: TrainRequest, sources: Mapping[str, Path | None], folder: Path, drafts: StoredDrafts) -> Outcome:
    """Search as `request.search` says; the best trial's outcome, with all trials in its history. `sources` as `Processes` has them."""
    assert request.search is not None, "a search was asked for"
    processes = Processes(task_id=job.run.task_id, sources=sources, folder=folder, parallel=request.search.parallel)
    known: list[tuple[Trial, ...]] = []

    def history(trials: tuple[Trial, ...]) -> dict[str, Any]:
        known[:] = [trials]
        return {"trials": [trial.record() for trial in trials]}

    notes = Notes(
        record=lambda trials: job.persist(lambda: job.tasks.report(job.run, history=history(trials))),
        tell=lambda progress, trials: job.report(progress, history=history(trials)),
        forget=lambda number: _checkpoints(job, request, number, folder).clear(),
    )
    outcome = Search(
        request=request,
        start=processes,
        kept=BestModel(drafts, folder),
        notes=notes,
        folder=folder,
        past=_past(job),
        grace=job.settings.grace_seconds + 1.0,
    ).run()
    trials = known[-1] if known else _past(job)
    best = best_of(trials, direction_of(request.search))
    assert best is not None, "the search raises without one"
    found = {"trial": best.number, "parameters": dict(best.parameters), "metric": request.search.metric, "value": best.value}
    return replace(
        outcome,
        history={**outcome.history, "trials": [trial.record() for trial in trials]},
        search={**found, "direction": direction_of(request.search), "trials": counts(trials)},
    )


def forget_running(job: jobs.Job, request: TrainRequest, folder: Path) -> None:
    """Remove the checkpoints of trials that were running: the task was cancelled, and they will not go on."""
    for trial in _past(job):
        if trial.state == "running":
            _checkpoints(job, request, trial.number, folder).clear()


def _past(job: jobs.Job) -> tuple[Trial, ...]:
    """The trials that the task has."""
    task = job.persist(lambda: job.tasks.get(job.run.task_id))
    return tuple(Trial.of(record) for record in task.get("history", {}).get("trials", []))


def _checkpoints(job: jobs.Job, request: TrainRequest, number: int, folder: Path) -> StoredDrafts:
    return StoredDrafts(request.model_save, Processes.draft_of(job.run.task_id, number), job.settings, folder)
