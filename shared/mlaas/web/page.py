"""A visit of a page: who visits, what is shown, and what an error becomes here.

Every response has a Content-Security-Policy that lets nothing in from another host and no script or style from within the page.
"""

from __future__ import annotations

import hashlib
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import flask
from werkzeug.exceptions import RequestEntityTooLarge

from .. import logs, metrics
from ..catalog import KINDS, Catalog, Kind, audit
from ..catalog.entries import Entry
from ..catalog.kinds import NOUNS
from ..catalog_api import rates, request_counts
from ..catalog_api.access import ANONYMOUS, Principal
from ..catalog_api.roles import ROLES, Role
from ..documents import Documents, shared
from ..errors import MlaasError, NotFound, TooLarge, Unauthenticated, Unavailable
from ..runtime import outcome_of, problem
from ..settings import Settings, current
from . import session
from .session import Session

__all__ = ["Page", "Visit", "answered", "guarded", "kind_of", "nothing"]

_NAMED = {"id": "task", "alias": "alias", "kind": "kind", "name": "name"}  # which fields of forms name what is changed
STATIC = Path(__file__).parent / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_SMALLER = "Send less; a file may have MLAAS_UPLOAD_BYTES, which whoever runs the platform sets."
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

log = logging.getLogger("mlaas")


@dataclass(frozen=True)
class Visit:
    """One request for a page."""

    settings: Settings
    principal: Principal
    session: Session | None = None

    @property
    def documents(self) -> Documents:
        """The document store."""
        return shared(self.settings)

    @property
    def catalog(self) -> Catalog:
        """The catalog in it."""
        return Catalog(self.documents)

    @property
    def in_place(self) -> bool:
        """Whether the script asks, which puts the answer into a page that is there."""
        return flask.request.headers.get("X-In-Place") == "1"

    def entry(self, kind: Kind, name: str) -> Entry:
        """The entry, if the visitor may read it. Raises NotFound, the same for one that is hidden and one that is not there."""
        entry = self.catalog.entry(kind, name)
        if not self.principal.may_read(entry):
            raise NotFound(f"the catalog has no {NOUNS[kind]} `{name}`", field="name", remedy="Some can be seen only by who is logged in.")
        return entry

    def show(self, template: str, *, status: int = 200, **values: Any) -> flask.Response:
        """A page, or with `in_place` the part of it that `template` names."""
        body = flask.render_template(template, visit=self, asset=_asset, **values)
        return flask.Response(body, status, {"Cache-Control": "no-store"}, content_type="text/html; charset=utf-8")


View = Callable[..., Any]


@dataclass(frozen=True)
class Page:
    """A view at a path. Who may see it is said by `roles`, under `web.` and the view's name.

    `prepare` is called before a form is read, to say how.
    """

    rule: str
    view: View
    methods: tuple[str, ...] = ("GET",)
    prepare: Callable[[Settings], None] | None = None

    @property
    def role(self) -> Role:
        """The role that it needs."""
        return ROLES[f"web.{self.view.__name__}"]


def answered(page: Page) -> View:
    """The view of `page` as Flask calls it: with the visitor, a line in the log, and an error as a page."""
    view, role = page.view, page.role

    @wraps(view)
    def answer(**path: str) -> Any:
        started, outcome, settings = time.perf_counter(), "succeeded", current()
        visit = Visit(settings, ANONYMOUS)
        with logs.bound(capability="web", operation=view.__name__):
            try:
                visit = _visit(settings)
                if page.prepare:
                    page.prepare(settings)
                if flask.request.method == "POST":
                    session.check_form(visit.session)
                    request_counts.take(visit.principal, settings)
                if role != "anonymous" and visit.principal == ANONYMOUS:
                    return _to_login(visit)
                return _seen(page, visit, path)
            except (MlaasError, RequestEntityTooLarge) as raised:
                error = raised if isinstance(raised, MlaasError) else TooLarge("the form is too large", remedy=_SMALLER)
                outcome = outcome_of(error)
                refused = _refused(visit, problem(error))
                if isinstance(error, Unavailable):
                    refused.headers["Retry-After"] = str(error.retry_after)
                return refused
            except Exception:
                outcome, error_id = "defect", str(uuid.uuid4())
                log.exception("request.defect", extra={"fields": {"error_id": error_id}})
                return _refused(
                    visit, {"status": 500, "title": "Internal error", "detail": "something is wrong here", "error_id": error_id}
                )
            finally:
                seconds = time.perf_counter() - started
                metrics.REQUEST_SECONDS.observe(seconds, "web", outcome)
                log.info("request.answered", extra={"fields": {"outcome": outcome, "ms": round(seconds * 1000, 1)}})

    return answer


def _seen(page: Page, visit: Visit, path: dict[str, str]) -> Any:
    """What the view says; a form that changes something is recorded."""
    subject, form = visit.principal.subject, flask.request.form
    changes = flask.request.method == "POST" and page.role != "anonymous" and form.get("action", "send") == "send"
    if not changes or subject is None:
        visit.principal.require(page.role)
        return page.view(visit, **path)
    named = {**path, **{what: form[field] for field, what in _NAMED.items() if field in form}}
    with audit.recorded(visit.documents, subject, f"web.{page.view.__name__}", named) as record:
        visit.principal.require(page.role)
        response = page.view(visit, **path)
        record.refused, record.made = response.status_code >= 400, response.headers.get("Location")
        return response


def _visit(settings: Settings) -> Visit:
    """Who visits: by the credentials of the request, else by the session."""
    if authorization := flask.request.headers.get("Authorization"):
        return Visit(settings, rates.admitted(authorization, flask.request.remote_addr, settings))
    found = session.current(settings)
    rates.count(found.principal if found else ANONYMOUS, flask.request.remote_addr, settings)
    return Visit(settings, found.principal if found else ANONYMOUS, found)


def _to_login(visit: Visit) -> Any:
    """To the login, and after it back to where a page was asked for; what a script asks for is refused."""
    if visit.in_place:
        raise Unauthenticated("you are not logged in any more", remedy="Load the page again to log in.")
    back = flask.request.full_path.rstrip("?") if flask.request.method == "GET" else "/web/"
    return flask.redirect(f"/web/login?{urlencode({'next': back})}", 303)


def _refused(visit: Visit, found: dict[str, Any]) -> flask.Response:
    return visit.show("part_problem.html" if visit.in_place else "problem.html", status=found["status"], problem=found)


def guarded(response: flask.Response) -> flask.Response:
    """The response with the headers that keep a page to itself; what is static is kept by browsers, its name changes with it."""
    response.headers.update(HEADERS)
    if (flask.request.endpoint or "").endswith(".static"):
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if "v" in flask.request.args else "no-cache"
    return response


def nothing(visit: Visit, **_: str) -> Any:
    """What is not there."""
    raise NotFound("there is no such page", remedy="Begin at the start page.")


def kind_of(text: str) -> Kind:
    """The kind of entry that a path names. Raises NotFound."""
    found = next((kind for kind in KINDS if kind == text), None)
    if found is None:
        raise NotFound("there is no such page", remedy="Begin at the start page.")
    return found


@lru_cache
def _asset(name: str) -> str:
    """The address of a static file, another one for another content."""
    return f"/web/static/{name}?v={hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]}"
