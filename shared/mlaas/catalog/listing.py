"""Finding entries: words, filters, an order, and pages of them."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..documents import Documents
from ..errors import InvalidRequest
from . import usage
from .entries import Entries, Entry, Visibility
from .kinds import Kind
from .usage import Usage

__all__ = ["Found", "Order", "Page", "Query", "search"]

Order = Literal["hotness", "downloads", "date", "name"]


@dataclass(frozen=True, kw_only=True)
class Query:
    """What is looked for. Each word of `text` is in the name, the description, the task or a tag; each of `tags` is a tag."""

    text: str = ""
    task: str | None = None
    tags: tuple[str, ...] = ()
    licence: str | None = None
    language: str | None = None
    precision: str | None = None
    owner: str | None = None
    visibility: Visibility | None = None
    order: Order = "hotness"

    def accepts(self, entry: Entry) -> bool:
        """Whether an entry is looked for."""
        said = " ".join((entry.name, entry.description, entry.task or "", *entry.tags)).casefold()
        one_of = ((self.language, entry.languages), (self.precision, entry.precisions), *((tag, entry.tags) for tag in self.tags))
        same = ("task", "licence", "owner", "visibility")
        return (
            all(word in said for word in self.text.casefold().split())
            and all(wanted is None or wanted in having for wanted, having in one_of)
            and all(getattr(self, name) in (None, getattr(entry, name)) for name in same)
        )


@dataclass(frozen=True)
class Found:
    """An entry and how much it is used."""

    entry: Entry
    usage: Usage

    def place(self, order: Order) -> tuple[str | float, str]:
        """What orders it, the greatest first, and its name, which orders what is alike."""
        value: dict[Order, str | float] = {
            "hotness": self.usage.rank,
            "downloads": self.usage.downloads,
            "date": self.entry.updated,
            "name": 0.0,
        }
        return value[order], self.entry.name


@dataclass(frozen=True)
class Page:
    """Some of what was found; `cursor` is where the next page starts, None after the last; `total` is how much there is in all."""

    found: list[Found]
    cursor: str | None
    total: int


def search(
    documents: Documents,
    kind: Kind,
    query: Query,
    *,
    readable: Callable[[Entry], bool] = lambda _: True,
    limit: int = 20,
    cursor: str | None = None,
) -> Page:
    """The entries of a kind that are `readable` and looked for. Raises InvalidRequest for a cursor that is not one of this order."""
    used = usage.of_all(documents, kind)
    entries = (entry for entry in Entries(documents).all(kind) if readable(entry) and query.accepts(entry))
    found = [Found(entry, used.get(entry.name, Usage())) for entry in entries]
    found.sort(key=lambda one: one.entry.name)
    found.sort(key=lambda one: one.place(query.order)[0], reverse=True)
    rest = found
    if cursor:
        value, name = _read(cursor, query.order)
        rest = [one for one in found if _is_after(one.place(query.order), (value, name))]
    page = rest[:limit]
    return Page(page, _written(page[-1], query.order) if len(rest) > limit else None, len(found))


def _is_after(place: tuple[str | float, str], last: tuple[str | float, str]) -> bool:
    value, of_last = (place[0], last[0])
    if value == of_last:
        return place[1] > last[1]
    if isinstance(value, str) or isinstance(of_last, str):
        return str(value) < str(of_last)
    return value < of_last


def _written(last: Found, order: Order) -> str:
    return urlsafe_b64encode(json.dumps([order, *last.place(order)]).encode()).decode().rstrip("=")


def _read(cursor: str, order: Order) -> tuple[str | float, str]:
    try:
        of, value, name = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if of == order and isinstance(name, str) and type(value) in ((str,) if order == "date" else (int, float)):
            return value, name
    except (ValueError, TypeError, RecursionError):
        pass
    raise InvalidRequest("this is no cursor of this search", field="cursor", remedy="Take `next` of the page before, with the same `sort`.")
