"""The start page: a string is classified here, and what there is."""

from __future__ import annotations

from typing import Any

import flask

from ..catalog import KINDS, listing
from ..catalog_api import shown
from ..errors import MlaasError
from ..tasks import Tasks
from . import demo_pages
from .page import Page, Visit
from .task_pages import about
from .trials import CLASSIFY

__all__ = ["PAGES"]

HOTTEST = 5


def start(visit: Visit) -> Any:
    """A classifier to try, or a button that trains one; the hottest models, and how much there is of each kind."""
    readable = visit.principal.may_read
    found = {kind: listing.search(visit.documents, kind, listing.Query(), readable=readable, limit=HOTTEST) for kind in KINDS}
    hottest = [shown.entry(one.entry, one.usage, {}) for one in found["models"].found]
    classifiers = listing.search(visit.documents, "models", listing.Query(task="text-classification"), readable=readable, limit=1)
    more: dict[str, Any] = {"rows": demo_pages.ROWS}
    if classifiers.found:
        entry = classifiers.found[0].entry
        more |= {"kind": "models", "name": entry.name, "version": entry.latest, "trial": CLASSIFY}
    elif visit.principal.has("user"):
        more["waited"] = _waited(visit)
    counts = Tasks(visit.documents).counts(visit.principal.owners) if visit.principal.has("user") else None
    totals = {kind: page.total for kind, page in found.items()}
    return visit.show("start.html", hottest=hottest, totals=totals, counts=counts, **more)


def _waited(visit: Visit) -> dict[str, Any] | None:
    """The training that the page waits for."""
    try:
        return about(visit, flask.request.args["task"]) if "task" in flask.request.args else None
    except MlaasError:
        return None


PAGES = (Page("/", start),)
