"""IVF-PQ (Jegou, Douze and Schmid 2011): cells of compressed vectors find candidates, the vectors themselves order them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .exact import Found, selector
from .faiss_files import library, vectors_of

__all__ = ["Cells", "cells_of", "efforts", "empty", "make", "training_rows"]

_ROWS = 16_384
_TRAINING_ROWS = 64  # for each cell; k-means gains little from more
_SEED = 1234


def make(flat: Path, target: Path, count: int, dimension: int) -> None:
    """Train cells and codes on a sample of the flat file's vectors, and encode all."""
    index, vectors = empty(count, dimension), vectors_of(flat, count, dimension)
    index.train(np.array(vectors[training_rows(count)]))
    for first in range(0, count, _ROWS):
        index.add(np.array(vectors[first : first + _ROWS]))
    library().write_index(index, str(target))


def empty(count: int, dimension: int) -> Any:
    """An IndexIVFPQ for `count` vectors, not trained yet."""
    faiss = library()
    index = faiss.IndexIVFPQ(faiss.IndexFlatL2(dimension), dimension, cells_of(count), _subvectors(dimension), 8)
    # Codes of the vectors rather than of their offsets from the cell: no table for each cell to compute at every start.
    index.by_residual = False
    index.cp.max_points_per_centroid = _TRAINING_ROWS
    index.cp.min_points_per_centroid = 1
    index.pq.cp.min_points_per_centroid = 1
    return index


def training_rows(count: int) -> NDArray[np.int64]:
    """The rows that cells and codes are trained on, in order."""
    number = min(count, max(cells_of(count) * _TRAINING_ROWS, 65_536))
    return np.sort(np.random.default_rng(_SEED).choice(count, number, replace=False))


def cells_of(count: int) -> int:
    """About 2 sqrt(n), a power of two: cells and their rows then cost a search about the same."""
    return int(max(1, min(2 ** round(np.log2(2 * np.sqrt(count))), count // 4, 65_536)))


def _subvectors(dimension: int) -> int:
    """One byte for about 8 dimensions."""
    return max(n for n in range(1, max(dimension // 8, 1) + 1) if dimension % n == 0)


def efforts(count: int) -> Iterator[Mapping[str, int]]:
    """Cells that are searched, and candidates whose vectors are compared for each result; the last finds everything."""
    cells, probes = cells_of(count), 4
    while probes < cells:
        for candidates in (10, 30):
            yield {"probes": probes, "candidates": candidates}
        probes += probes // 2 if probes & (probes - 1) == 0 else probes // 3  # 4, 6, 8, 12, 16
    for candidates in (30, 100, 1000):
        yield {"probes": cells, "candidates": candidates}


class Cells:
    """An IndexIVFPQ, and the vectors (n, d) that its candidates are compared by."""

    def __init__(self, index: Any, vectors: NDArray[np.float32], parameters: Mapping[str, int]) -> None:
        self._index, self._vectors = index, vectors
        self._probes, self._candidates = parameters["probes"], parameters["candidates"]

    def search(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None) -> Found:
        """As exact search: squared distances and rows (n, k) of those `allowed`, nearest first; -1 where none was found."""
        faiss = library()
        wanted = min(max(k * self._candidates, 100), len(self._vectors))
        probes = self._probes if allowed is None else int(self._probes * len(allowed) / max(int(allowed.sum()), 1))
        params = faiss.SearchParametersIVF(nprobe=min(probes, self._index.nlist), **({} if allowed is None else {"sel": selector(allowed)}))
        _, rows = self._index.search(queries, wanted, params=params)
        squares = np.full(rows.shape, np.inf, dtype=np.float32)
        for number, (query, found) in enumerate(zip(queries, rows, strict=True)):
            real = (found >= 0) & (found < len(self._vectors))
            apart = self._vectors[np.where(real, found, 0)] - query
            squares[number] = np.where(real, np.einsum("rd,rd->r", apart, apart), np.inf)
        rows = np.where(np.isfinite(squares), rows, -1)
        order = np.argsort(squares, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(squares, order, axis=1), np.take_along_axis(rows, order, axis=1)
