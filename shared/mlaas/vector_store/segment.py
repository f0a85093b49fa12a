"""An open segment: its index and its vectors, memory-mapped, which of its rows live, and its documents."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidRequest
from . import filters
from .exact import Found, nearest_of
from .faiss_files import check, size_of
from .filters import Filter
from .indexes import opened
from .manifest import DELETED, SegmentRecord
from .rows import DOCUMENTS, Document

__all__ = ["Segment"]

# Up to this part of the rows, comparing each that a filter lets through is faster than an index; up to so many, it is surer than a graph or
# cells, but slower: the vectors are copied first.
_SCANNED_ROWS, _SCANNED_PART = 10_000, 0.02
_KEPT_FILTERS = 16
_MAPPED_BYTES = 1 << 31  # of the documents: a page that is mapped is neither read nor copied
_FETCHED_ROWS = 500  # by one statement
_PARSED = json.JSONDecoder().raw_decode  # json.loads takes three times as long for a small object


class Segment:
    """A segment of an open store. Any number of threads may use it at once."""

    def __init__(self, folder: Path, record: SegmentRecord, dimension: int) -> None:
        place = folder / record.folder
        self.record = record
        self.index, self.vectors = opened(place, record.index_type, record.count, dimension, record.parameters)
        self.live = _live(place / DELETED, record)
        self._uri = f"file:{quote(str((place / DOCUMENTS).absolute()))}?mode=ro&immutable=1"
        self._own = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._filtered: OrderedDict[Filter, NDArray[np.bool_]] = OrderedDict()
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raise InvalidRequest unless its documents are those of its index."""
        try:
            (last,) = self.connection().execute("SELECT max(row) FROM documents").fetchone()
        except sqlite3.Error:
            last = None
        check(last == self.record.count - 1, f"{DOCUMENTS} does not hold the documents of its index")

    def close(self) -> None:
        """Close the database connections of all threads; no search may be under way."""
        while self._connections:
            self._connections.pop().close()

    def search(self, queries: NDArray[np.float32], k: int, condition: Filter | None = None) -> Found:
        """Squared L2 distances and rows (n, at most k) of the nearest living documents that `condition` lets through, nearest first.

        As many as there are, unless there are more than `k`.
        """
        allowed = self.allowed(condition)
        count = self.record.count if allowed is None else int(allowed.sum())
        k = min(k, count)
        scanned = int(_SCANNED_PART * self.record.count)
        if allowed is not None and count <= (scanned if self.record.index_type == "flat" else max(_SCANNED_ROWS, scanned)):
            return nearest_of(self.vectors, np.flatnonzero(allowed), queries, k)
        squares, rows = self.index.search(queries, k, allowed)
        if rows[:, -1].min() < 0:  # a graph may have rows that no walk reaches, and cells that are searched may hold fewer rows
            missed = np.flatnonzero(rows[:, -1] < 0)
            every = np.arange(self.record.count) if allowed is None else np.flatnonzero(allowed)
            squares[missed], rows[missed] = nearest_of(self.vectors, every, queries[missed], k)
        return squares, rows

    def allowed(self, condition: Filter | None) -> NDArray[np.bool_] | None:
        """Which rows live and are let through, None for all."""
        if condition is None:
            return self.live
        with self._lock:
            if (kept := self._filtered.get(condition)) is not None:
                self._filtered.move_to_end(condition)
                return kept
        allowed = filters.mask(self.connection(), condition, self.record.count)
        if self.live is not None:
            allowed &= self.live
        with self._lock:
            self._filtered[condition] = allowed
            while len(self._filtered) > _KEPT_FILTERS:
                self._filtered.popitem(last=False)
        return allowed

    def distances(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """The squared L2 distances from `query` (d) to `rows`."""
        apart = self.vectors[rows] - query
        squares: NDArray[np.float64] = np.einsum("rd,rd->r", apart, apart, dtype=np.float64)
        return squares

    def documents(self, rows: Iterable[int]) -> Mapping[int, Document]:
        """The documents of `rows`, by row."""
        wanted = [int(row) for row in rows]
        found: dict[int, Document] = {}
        for first in range(0, len(wanted), _FETCHED_ROWS):
            some = wanted[first : first + _FETCHED_ROWS]
            marks = ",".join("?" * len(some))
            # The values stay parameters; only their number is written into the statement.
            known = self.connection().execute(f"SELECT row, id, text, metadata FROM documents WHERE row IN ({marks})", some)  # noqa: S608
            found |= {row: Document(key, text, _PARSED(metadata)[0]) for row, key, text, metadata in known}
        return found

    def row_of(self, key: str) -> int | None:
        """The row of the living document with the id `key`, None where there is none."""
        found = self.connection().execute("SELECT row FROM documents WHERE id = ?", (key,)).fetchone()
        return found[0] if found and (self.live is None or self.live[found[0]]) else None

    def has(self, table: str) -> bool:
        """Whether its documents have this table; those of older stores have fewer."""
        return self.connection().execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone() is not None

    def require(self, table: str, field: str) -> None:
        """Raise InvalidRequest unless its documents have this table, which the request's `field` needs."""
        if not self.has(table):
            raise InvalidRequest(
                f"the index was built by an older release and cannot be searched with `{field}`",
                field=field,
                remedy="Index the documents again.",
            )

    def connection(self) -> sqlite3.Connection:
        """This thread's connection to the documents."""
        connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self._uri, uri=True, check_same_thread=False)  # each thread uses its own; `close` closes all
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute(f"PRAGMA mmap_size={_MAPPED_BYTES}")
            self._own.connection = connection
            self._connections.append(connection)
        return connection


def _live(path: Path, record: SegmentRecord) -> NDArray[np.bool_] | None:
    if not record.deleted:
        return None
    check(size_of(path) == 4 * record.deleted, f"{DELETED} has another size than its manifest says")
    deleted = np.fromfile(path, dtype="<u4")
    check(bool((deleted < record.count).all()), f"{DELETED} is damaged")
    live = np.ones(record.count, dtype=np.bool_)
    live[deleted] = False
    check(int(live.sum()) == record.live, f"{DELETED} is damaged")
    return live
