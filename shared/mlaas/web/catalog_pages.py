"""Lists of models, data sets and vector stores: found by words, filtered, in an order, page after page."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import flask

from ..catalog import listing
from ..catalog.contracts import ListQuery
from ..catalog_api import shown
from ..contracts import parse
from ..errors import InvalidRequest
from .page import Page, Visit, kind_of

__all__ = ["PAGES", "TITLES"]

TITLES = {"models": "Models", "datasets": "Data sets", "indexes": "Vector stores"}
_KNOWN = ("q", "task", "tag", "licence", "language", "precision", "owner", "visibility", "sort", "cursor")


def entries(visit: Visit, kind: str) -> Any:
    """The entries of a kind that the visitor may see and looks for."""
    of, asked = kind_of(kind), {name: values for name, values in flask.request.args.to_dict(flat=False).items() if any(values)}
    given = {name: asked[name] if name == "tag" else asked[name][-1] for name in _KNOWN if name in asked}
    refused, query = None, ListQuery()
    try:
        query = parse(ListQuery, given)
    except InvalidRequest as error:
        refused = error
    page = listing.search(
        visit.documents, of, query.wanted(), readable=visit.principal.may_read, limit=query.limit, cursor=None if refused else query.cursor
    )
    pointing = visit.catalog.aliases(of)
    items = [shown.entry(one.entry, one.usage, pointing.get(one.entry.name, {})) for one in page.found]
    following = urlencode({**given, "cursor": page.cursor}, doseq=True) if page.cursor else None
    everything = listing.search(visit.documents, of, listing.Query(), readable=visit.principal.may_read, limit=1000).found
    return visit.show(
        "entries.html",
        kind=of,
        title=TITLES[of],
        query=query,
        items=items,
        total=page.total,
        following=following,
        refused=refused,
        narrowed=bool(set(given) - {"sort", "cursor"}),
        choices=_choices([one.entry for one in everything]),
        hottest=max((one.hotness for one in items), default=0.0),
    )


def _choices(found: list[Any]) -> dict[str, list[str]]:
    """What can be chosen to narrow the list."""
    several = {"tag": "tags", "language": "languages", "precision": "precisions"}
    single = {name: {getattr(one, name) for one in found} - {None} for name in ("task", "licence")}
    return {name: sorted(values) for name, values in single.items()} | {
        name: sorted({value for one in found for value in getattr(one, field)}) for name, field in several.items()
    }


PAGES = (Page("/<kind>", entries),)
