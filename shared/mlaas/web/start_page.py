"""The start page: what there is."""

from __future__ import annotations

from typing import Any

from ..catalog import KINDS, listing
from ..catalog_api import shown
from .page import Visit

__all__ = ["PAGES"]

HOTTEST = 5


def start(visit: Visit) -> Any:
    """The hottest models, and how much there is of each kind."""
    found = {
        kind: listing.search(visit.documents, kind, listing.Query(), readable=visit.principal.may_read, limit=HOTTEST) for kind in KINDS
    }
    hottest = [shown.entry(one.entry, one.usage, {}) for one in found["models"].found]
    return visit.show("start.html", hottest=hottest, totals={kind: page.total for kind, page in found.items()})


PAGES = (("/", start, ("GET",)),)
