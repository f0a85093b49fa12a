"""Trying a model or a vector store: what the form of its page sends, and the answer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import flask

from ..errors import InvalidRequest, MlaasError
from ..runtime import problem
from .asking import ask
from .page import Page, Visit
from .trials import SEARCH, Trial, trial_of

__all__ = ["PAGES"]


def try_model(visit: Visit, name: str) -> Any:
    """Ask the function of a model's task."""
    visit.entry("models", name)
    body = visit.catalog.resolve("models", name, revision=flask.request.form.get("version") or None)
    trial = trial_of("models", body.get("objective"))
    if trial is None:
        raise InvalidRequest("no function serves a model of this task", remedy="Use it with the SDK.")
    return _tried(visit, "models", body, trial, {"model": {"name": name, "revision": body["version"]}})


def try_index(visit: Visit, name: str) -> Any:
    """Search a vector store."""
    visit.entry("indexes", name)
    body = visit.catalog.resolve("indexes", name, revision=flask.request.form.get("version") or None)
    return _tried(visit, "indexes", body, SEARCH, {"dataset": {"name": name, "revision": body["version"]}})


def _tried(visit: Visit, kind: str, body: Mapping[str, Any], trial: Trial, of: Mapping[str, Any]) -> Any:
    given = {name: flask.request.form.get(name, "").strip() for name, _, _ in trial.fields}
    found, refused, seconds, status = None, None, 0.0, 200
    started = time.perf_counter()
    try:
        for name, label, _ in trial.fields:
            if not given[name]:
                raise InvalidRequest(f"`{label}` is empty", field=name, remedy="Write something into it.")
        answer = ask(visit.settings, trial.capability, {**of, **trial.ask(given)})
        found, seconds = trial.read(given, answer.data), time.perf_counter() - started
    except MlaasError as error:
        refused = problem(error)
        status = refused["status"]
    template = "part_tried.html" if visit.in_place else "tried.html"
    return visit.show(
        template,
        status=status,
        kind=kind,
        name=body["name"],
        version=body["version"],
        trial=trial,
        given=given,
        found=found,
        problem=refused,
        seconds=seconds,
    )


PAGES = (Page("/models/<name>/try", try_model, ("POST",)), Page("/indexes/<name>/try", try_index, ("POST",)))
