"""The page of a model, a data set or a vector store: what it is, how good it is, where it comes from and what it is used for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flask

from ..catalog import Kind, aliases, usage
from ..catalog.entries import Entry
from ..catalog_api import files, shown
from ..catalog_api.access import Principal
from ..errors import InvalidRequest, MlaasError, NotFound
from ..runtime import problem
from ..tasks import Tasks
from . import charts, lineage_graph, markdown
from .catalog_pages import TITLES
from .page import Page, Visit, kind_of
from .trials import trial_of

__all__ = ["PAGES", "shown_entry"]


def entry(visit: Visit, kind: str, name: str) -> Any:
    """One version of an entry: what `version` or `alias` of the query says, or the latest."""
    of = kind_of(kind)
    return shown_entry(visit, of, visit.entry(of, name))


def shown_entry(
    visit: Visit, of: Kind, about: Entry, *, refused: InvalidRequest | None = None, written: Mapping[str, str] | None = None
) -> flask.Response:
    """The page of an entry; `refused` is why the alias that was `written` into its form, or was to go back, stays where it is."""
    asked, name = flask.request.args, about.name
    body = visit.catalog.resolve(of, name, alias=asked.get("alias") or None, revision=asked.get("version") or None)
    pointing = visit.catalog.aliases_of(of, name)
    version = shown.version(of, body, about, pointing)
    card = shown.card_of(body, about)
    versions, older = visit.catalog.page(of, name, limit=20, before=asked.get("before") or None)
    evaluation = body.get("evaluation") or {}
    pointers = aliases.of(visit.documents, of, name)
    return visit.show(
        f"{of}.html",
        status=problem(refused)["status"] if refused else 200,
        kind=of,
        title=TITLES[of],
        entry=shown.entry(about, usage.of(visit.documents, of, name), pointing),
        version=version,
        body=body,
        card=markdown.render(card) if card else None,
        versions=[shown.summary(of, one, pointing) for one in versions],
        older=older,
        aliases=[(shown.alias(stored.body), stored.revision) for stored in pointers],
        may_change=visit.principal.owns(about),
        refused=refused,
        written=written or {},
        moved=asked.get("moved") if asked.get("moved") in pointing else None,
        back=asked.get("back") if asked.get("back") in pointing else None,
        graph=lineage_graph.drawn(lineage_graph.nodes(visit.documents, of, body, version.lineage, visible=_visible(visit))),
        classes=evaluation.get("per_class") or evaluation.get("per_type") or {},
        confusion=charts.confusion(evaluation.get("confusion")),
        curves=charts.curves(_history(visit, body)),
        trial=trial_of(of, body.get("objective")),
        figures=(body.get("card") or {}).get("figures") or {},
    )


def _history(visit: Visit, body: Any) -> dict[str, Any]:
    try:
        return dict(Tasks(visit.documents).get(body["task_id"]).get("history") or {}) if body.get("task_id") else {}
    except MlaasError:  # tasks may be removed; a version stays
        return {}


def _visible(visit: Visit) -> Any:
    def visible(kind: Any, name: str) -> bool:
        found = visit.catalog.entries.get(kind, name)
        principal: Principal = visit.principal
        return found is not None and principal.may_read(found)

    return visible


def file_list(visit: Visit, kind: str, name: str, version: str) -> Any:
    """The files of a version, with links."""
    of = kind_of(kind)
    about = visit.entry(of, name)
    body = visit.catalog.resolve(of, name, revision=version)
    found = sorted(files.records(body, visit.settings).items())
    return visit.show("files.html", kind=of, title=TITLES[of], entry=about, version=body["version"], files=found)


def file(visit: Visit, kind: str, name: str, version: str, file: str) -> Any:
    """A file of a version."""
    of = kind_of(kind)
    visit.entry(of, name)
    body = visit.catalog.resolve(of, name, revision=version)
    response = files.send(body, file, visit.settings)
    if flask.request.method == "GET" and response.status_code in (200, 307):
        usage.record(visit.documents, of, name, "downloads")
    return response


def card(visit: Visit, kind: str, name: str, version: str) -> Any:
    """The card as Markdown."""
    of = kind_of(kind)
    found = shown.card_of(visit.catalog.resolve(of, name, revision=version), visit.entry(of, name))
    if found is None:
        raise NotFound("this version has no card", remedy="Train it again, or say something with `card` of its entry.")
    return flask.Response(found, content_type="text/markdown; charset=utf-8")


PAGES = (
    Page("/<kind>/<name>", entry),
    Page("/<kind>/<name>/versions/<version>/files", file_list),
    Page("/<kind>/<name>/versions/<version>/files/<path:file>", file),
    Page("/<kind>/<name>/versions/<version>/card", card),
)
