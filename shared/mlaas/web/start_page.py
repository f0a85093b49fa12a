"""The start page: a string is classified here, and what there is."""

from __future__ import annotations

from typing import Any

from ..catalog import KINDS, listing
from ..catalog_api import shown
from .page import Page, Visit
from .trials import CLASSIFY

__all__ = ["PAGES"]

HOTTEST = 5


def start(visit: Visit) -> Any:
    """A classifier to try, the hottest models, and how much there is of each kind."""
    readable = visit.principal.may_read
    found = {kind: listing.search(visit.documents, kind, listing.Query(), readable=readable, limit=HOTTEST) for kind in KINDS}
    hottest = [shown.entry(one.entry, one.usage, {}) for one in found["models"].found]
    classifiers = listing.search(visit.documents, "models", listing.Query(task="text-classification"), readable=readable, limit=1)
    tried: dict[str, Any] = {}
    if classifiers.found:
        entry = classifiers.found[0].entry
        tried = {"kind": "models", "name": entry.name, "version": entry.latest, "trial": CLASSIFY}
    return visit.show("start.html", hottest=hottest, totals={kind: page.total for kind, page in found.items()}, **tried)


PAGES = (Page("/", start),)
