"""Tasks: a list, a page for each with its progress while it runs, and cancelling one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import flask

from ..catalog_api.task_operations import cursor
from ..errors import MlaasError
from ..journal import Journal
from ..tasks import FINAL, Tasks
from . import charts
from .page import Page, Visit

__all__ = ["PAGES", "about"]

STATUSES = ("accepted", "running", *FINAL)
LISTED = 30


def tasks(visit: Visit) -> Any:
    """Tasks, newest first."""
    asked = flask.request.args.get("status")
    status = asked if asked in STATUSES else None
    kept, owners, before = Tasks(visit.documents), visit.principal.owners, cursor(flask.request.args.get("before") or None)
    found, following = kept.find(status=status, owners=owners, limit=LISTED, before=before)
    counts = kept.counts(owners)
    return visit.show("tasks.html", tasks=found, following=following, chosen=status, statuses=STATUSES, counts=counts)


def task(visit: Visit, task_id: str) -> Any:
    """One task."""
    return visit.show("task.html", **about(visit, task_id))


def live(visit: Visit, task_id: str) -> Any:
    """What changes on the page of a task while it runs."""
    return visit.show("part_task.html", **about(visit, task_id))


def cancel(visit: Visit, task_id: str) -> Any:
    """Ask for the end of a task, and go back to its page."""
    Tasks(visit.documents).cancel(task_id, visit.principal.owners)
    return flask.redirect(f"/web/tasks/{task_id}", 303)


def about(visit: Visit, task_id: str) -> dict[str, Any]:
    """What is shown of a task. Raises NotFound, also for one that the visitor may not see."""
    kept = Tasks(visit.documents)
    found = kept.get(task_id, visit.principal.owners)
    request, stats = found["request"], found["stats"]
    elapsed = stats.get("elapsed")
    if elapsed is None and (started := stats.get("started")):
        elapsed = max((datetime.now(UTC) - datetime.fromisoformat(started)).total_seconds(), 0.0)
    return {
        "task": found,
        "saved": _saved(request),
        "ended": found["task_status"] in FINAL,
        "cancelling": found["task_status"] not in FINAL and kept.is_to_end(task_id),
        "elapsed": elapsed,
        "curves": charts.curves(found.get("history") or {}, found.get("progress")),
        "metrics": {name: value for name, value in (found.get("evaluation") or {}).items() if isinstance(value, int | float)},
        "made": _made(visit, found.get("result") or {}),
        "trials": (found.get("history") or {}).get("trials") or [],
        "lines": kept.log(task_id),
        "chain": next((one.event.get("correlationid") for one in Journal(visit.documents).find(task_id=task_id, limit=1)), None),
    }


def _saved(request: dict[str, Any]) -> str:
    """What a task's result is called."""
    save = request.get("model_save") or request.get("vector_store_save") or {}
    return str(save.get("name") or save.get("path") or "")


def _made(visit: Visit, result: dict[str, Any]) -> dict[str, str] | None:
    """Kind, name and version of what a task published, where it is still there."""
    for key, kind in (("index", "indexes"), ("model", "models")):  # an index names the model that embedded it, too
        ref = result.get(key)
        if isinstance(ref, dict) and ref.get("name"):
            try:
                body = visit.catalog.resolve(kind, ref["name"], revision=ref.get("version"))  # type: ignore[arg-type]
            except MlaasError:
                return None
            return {"kind": kind, "name": body["name"], "version": body["version"]}
    return None


PAGES = (
    Page("/tasks", tasks),
    Page("/tasks/<task_id>", task),
    Page("/tasks/<task_id>/live", live),
    Page("/tasks/<task_id>/cancel", cancel, ("POST",)),
)
