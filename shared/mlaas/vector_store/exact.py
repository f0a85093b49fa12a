"""Exact search: every vector is compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .faiss_files import library

__all__ = ["Exact", "efforts", "make", "nearest_of", "selector"]

_ROWS = 16_384  # gathered at once: 24 MB of 384 dimensions

Found = tuple[NDArray[np.float32], NDArray[np.int64]]


def make(flat: Path, target: Path, count: int, dimension: int) -> None:
    """The index of the vectors in the flat file is that file."""
    flat.rename(target)


def efforts(count: int) -> Iterator[Mapping[str, int]]:
    """There is nothing to set."""
    yield {}


class Exact:
    """An IndexFlatL2."""

    def __init__(self, index: Any, vectors: NDArray[np.float32], parameters: Mapping[str, int]) -> None:
        self._index = index

    def search(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None) -> Found:
        """Squared distances and rows (n, k) of the nearest vectors whose row is `allowed`, nearest first."""
        faiss = library()
        only = {} if allowed is None else {"params": faiss.SearchParameters(sel=selector(allowed))}
        found: Found = self._index.search(queries, k, **only)
        return found


def selector(allowed: NDArray[np.bool_]) -> Any:
    """What FAISS takes to leave out rows."""
    faiss = library()
    return faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))


def nearest_of(vectors: NDArray[np.float32], rows: NDArray[np.int64], queries: NDArray[np.float32], k: int) -> Found:
    """As `search`, among `rows` only: exact, in time proportional to their number."""
    faiss = library()
    squares = np.full((len(queries), k), np.inf, dtype=np.float32)
    found = np.full((len(queries), k), -1, dtype=np.int64)
    for first in range(0, len(rows), _ROWS):
        some = rows[first : first + _ROWS]
        index = faiss.IndexFlatL2(vectors.shape[1])
        index.add(np.ascontiguousarray(vectors[some]))
        distances, places = index.search(queries, min(k, len(some)))
        squares, found = _nearer(np.hstack([squares, distances]), np.hstack([found, some[places]]), k)
    return squares, found


def _nearer(squares: NDArray[np.float32], rows: NDArray[np.int64], k: int) -> Found:
    order = np.argsort(squares, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(squares, order, axis=1), np.take_along_axis(rows, order, axis=1)
