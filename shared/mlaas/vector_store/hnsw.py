"""HNSW (Malkov and Yashunin 2018): a graph that is walked towards the query; exact distances, most of the nearest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .exact import Found, selector
from .faiss_files import library, vectors_of

__all__ = ["Graph", "efforts", "make"]

LINKS, CONSTRUCTION = 16, 128  # the paper's M and efConstruction: twice M links on the lowest level
_LARGEST_EF = 4096
_ROWS = 16_384


def make(flat: Path, target: Path, count: int, dimension: int) -> None:
    """Build the graph of the vectors in the flat file; it holds them too."""
    faiss = library()
    index = faiss.IndexHNSWFlat(dimension, LINKS)
    index.hnsw.efConstruction = CONSTRUCTION
    vectors = vectors_of(flat, count, dimension)
    for first in range(0, count, _ROWS):
        index.add(np.array(vectors[first : first + _ROWS]))
    faiss.write_index(index, str(target))


def efforts(count: int) -> Iterator[Mapping[str, int]]:
    """The candidates that a search keeps, fewest first."""
    for ef in (16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512, 768, 1024, 2048, _LARGEST_EF):
        yield {"ef_search": ef}


class Graph:
    """An IndexHNSWFlat."""

    def __init__(self, index: Any, vectors: NDArray[np.float32], parameters: Mapping[str, int]) -> None:
        self._index, self._ef = index, parameters["ef_search"]
        self._usual = library().SearchParametersHNSW(efSearch=self._ef)  # making one takes a tenth of a search

    def search(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None) -> Found:
        """Squared distances and rows (n, k) of the nearest vectors whose row is `allowed`, nearest first; -1 where none was found."""
        ef, params = max(self._ef, 2 * k), self._usual
        if allowed is not None:
            # The walk passes rows that are not allowed and drops them: as many more candidates as there are rows for each allowed one.
            ef = max(min(int(ef * len(allowed) / max(int(allowed.sum()), 1)), _LARGEST_EF), ef)
            params = library().SearchParametersHNSW(efSearch=ef, sel=selector(allowed))
        elif ef != self._ef:
            params = library().SearchParametersHNSW(efSearch=ef)
        found: Found = self._index.search(queries, k, params=params)
        return found
