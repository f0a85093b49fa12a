"""The store of tasks and of the catalog: one narrow interface over collections of JSON documents.

Every document has a key, unique in its collection, and a revision that counts its changes. `replace` is a compare-and-set
on the revision, which is the only way a document changes: what must happen together (a task's final state and its
completion event) is one document and so one write, on every backend, without transactions.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from ..errors import InvalidRequest
from ..settings import Settings, current

__all__ = ["INDEXED", "Between", "Documents", "Stored", "connect", "every", "shared"]

_PAGE = 500  # documents that `every` reads at once

# Fields that `find` matches often; the backends keep an index for each.
INDEXED: Mapping[str, tuple[str, ...]] = {
    "tasks": ("task_status", "outbox_pending", "owner", "asked_by"),
    "models": ("name", "digest"),
    "indexes": ("name", "digest", "model_name"),
    "datasets": ("name", "digest", "sha256"),
    "aliases": ("kind",),
    "entries": ("kind", "owner"),
    "usage": ("kind",),
    "ledger": ("status", "event_id"),
    "events": ("task_id", "type", "capability", "time", "chain", "owner"),
    "replays": (),
    "quotas": (),
    "quota_requests": (),
    "quota_storage": (),
    "audit": ("subject", "operation", "name", "time"),
}


@dataclass(frozen=True)
class Stored:
    """A document as it is in the store. `created` is a time in nanoseconds, and orders `find`."""

    key: str
    revision: int
    created: int
    body: dict[str, Any]

    @property
    def cursor(self) -> str:
        """Where the next page of a `find` that ended with this document starts."""
        return f"{self.created}:{self.key}"


@dataclass(frozen=True)
class Between:
    """Matches a text field from `low` on and below `high`, in the order of its code points; None leaves an end open.

    Times in ISO 8601, all in UTC and with the same number of digits, are in that order.
    """

    low: str | None = None
    high: str | None = None


class Documents(Protocol):
    """What a backend provides. Every method raises Unavailable while the store is away."""

    def insert(self, collection: str, key: str, body: Mapping[str, Any], *, after: int = 0) -> bool:
        """Add a document durably, `created` now and later than `after`; False, and no change, if the key is taken."""

    def get(self, collection: str, key: str) -> Stored | None:
        """The document with this key."""

    def replace(self, collection: str, stored: Stored, body: Mapping[str, Any]) -> bool:
        """Replace the document durably; False, and no change, if it is no longer as it was in `stored`."""

    def find(self, collection: str, match: Mapping[str, Any], *, limit: int = 100, before: str | None = None) -> list[Stored]:
        """Up to `limit` documents whose fields equal `match`, lie in a `Between`, or are one of the texts of a tuple, newest first.

        `before` is the cursor of a previous page's last document.
        """

    def count(self, collection: str, match: Mapping[str, Any]) -> int:
        """How many documents `find` would find without a limit."""

    def close(self) -> None:
        """Give up every connection."""


def every(documents: Documents, collection: str, match: Mapping[str, Any]) -> Iterator[Stored]:
    """All documents that match, newest first; they are read as they are asked for."""
    before = None
    while page := documents.find(collection, match, limit=_PAGE, before=before):
        yield from page
        before = page[-1].cursor


def connect(url: str) -> Documents:
    """The store at `url`: `sqlite:///path` or `mongodb://host/database`."""
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        from .sqlite import SqliteDocuments

        return SqliteDocuments(Path(rest))
    if scheme in ("mongodb", "mongodb+srv"):
        from .mongo import MongoDocuments

        return MongoDocuments(url)
    raise InvalidRequest(
        "the document store's URL has an unknown scheme", field="MLAAS_DOCUMENTS", remedy="Use sqlite:///path or mongodb://host/database."
    )


def shared(settings: Settings | None = None) -> Documents:
    """This process's store; one, however many threads ask for it first at the same time."""
    url = (settings or current()).documents_url
    with _opening:
        return _shared(url)


_opening = threading.Lock()  # a cache alone calls for each of those that ask before the first has its answer
_shared = lru_cache(maxsize=4)(connect)
