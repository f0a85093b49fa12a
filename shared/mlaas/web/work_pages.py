"""Asking for long work: the forms of a training and of a vector store, and the request that they send."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import flask

from ..catalog import listing
from ..catalog_api.quotas import Quotas
from ..contracts import parse
from ..errors import MlaasError, NotFound
from ..runtime import problem
from ..tasks import Tasks
from . import request_forms
from .asking import ask
from .forms import Form, Written
from .page import Page, Visit

__all__ = ["PAGES"]

MAKES_VECTORS = ("sentence-embedding", "no-objective")
OFFERED = 100


def train(visit: Visit) -> Any:
    """Ask for a training."""
    return _asked(visit, "train", request_forms.train(_datasets(visit)))


def build(visit: Visit) -> Any:
    """Ask for a vector store."""
    found = listing.search(visit.documents, "models", listing.Query(order="name"), readable=visit.principal.may_read, limit=OFFERED).found
    models = [one.entry.name for one in found if one.entry.task in MAKES_VECTORS]
    return _asked(visit, "index", request_forms.build(models, _datasets(visit)))


def _datasets(visit: Visit) -> list[dict[str, Any]]:
    """The newest versions of data sets that the visitor may see."""
    found = listing.search(visit.documents, "datasets", listing.Query(), readable=visit.principal.may_read, limit=OFFERED).found
    readable = {one.entry.name for one in found}
    return [one for one in visit.catalog.versions("datasets", limit=OFFERED) if one["name"] in readable]


def _asked(visit: Visit, capability: str, form: Form) -> Any:
    show = _shown(visit, capability, form)
    if flask.request.method == "GET":
        return show(_started(visit, form))
    sent = flask.request.form
    action = sent.get("action", "send")
    written = Written.of_json(form, sent["request"]) if sent.get("as_json") else Written.of_fields(form, sent)
    if action == "preview":
        written.check()
        return visit.show("part_request.html", written=written)
    if action in ("json", "fields"):
        return show(_turned(written, action))
    written.check()
    if not written.found:
        try:
            if capability == "train" and visit.principal.subject and not visit.principal.has("admin"):
                Quotas(visit.documents, visit.settings).require_training([visit.principal.subject])
            answer = ask(visit.settings, capability, written.request, key=sent.get("key") or None)
            return flask.redirect(f"/web/tasks/{answer.data['task_id']}", 303)
        except MlaasError as error:
            written.found.append(error)
    return show(written, status=problem(written.found[0])["status"])


def _shown(visit: Visit, capability: str, form: Form) -> Callable[..., Any]:
    def show(written: Written, status: int = 200) -> Any:
        key = flask.request.form.get("key") or str(uuid.uuid4())  # a form that is sent twice asks once
        return visit.show("work.html", status=status, capability=capability, form=form, written=written, beside=written.beside(), key=key)

    return show


def _started(visit: Visit, form: Form) -> Written:
    """An empty form, or one with what a task asked for."""
    if task_id := flask.request.args.get("task"):
        kept = Tasks(visit.documents).get(task_id, visit.principal.owners)["request"]
        request = parse(form.contract, kept).model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        given, whole = form.given(request)
        written = Written.of_fields(form, given)
        if not whole:
            written = Written.of_json(form, _text(request))
        return written
    given = {**form.started(), **{name: value for name, value in flask.request.args.items() if name in {one.path for one in form.fields}}}
    return Written.of_fields(form, given)


def _turned(written: Written, action: str) -> Written:
    """The same request, as JSON or in fields, where the fields can say it."""
    if action == "json" and not written.as_json:
        return Written.of_json(written.form, written.text)
    if action == "fields" and written.as_json and not written.found:
        given, whole = written.form.given(written.request)
        if whole:
            return Written.of_fields(written.form, given)
        written.found.append(NotFound("the form has no field for some of this", remedy="Send it as JSON."))
    return written


def _text(request: Any) -> str:
    return json.dumps(request, indent=2, ensure_ascii=False)


PAGES = (Page("/train", train, ("GET", "POST")), Page("/build", build, ("GET", "POST")))
