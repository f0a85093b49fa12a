"""Which index a segment gets, and how much effort its searches take: chosen by size, and by the recall that is measured."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidRequest
from . import exact, hnsw, ivf_pq
from .exact import Found
from .faiss_files import INDEX, VECTORS, open_index, vectors_of

__all__ = ["INDEX_TYPES", "Choice", "Index", "Made", "make", "opened"]

RECALL = 0.95
RECALL_AT = 10
QUERIES = 256
# Below the first an exact search takes milliseconds; beyond the second a graph takes longer to build than it saves, and more memory.
FLAT_ROWS, HNSW_ROWS = 20_000, 200_000
LEAST_ROWS = 1000  # that any index but the exact one is trained on or worth
_SEED = 20_261_124

log = logging.getLogger("mlaas")


class Index(Protocol):
    """A way to search vectors."""

    def search(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None) -> Found:
        """Squared distances and rows (n, k), nearest first; -1 where none was found."""


@dataclass(frozen=True)
class _Type:
    make: Callable[[Path, Path, int, int], None]
    efforts: Callable[[int], Iterator[Mapping[str, int]]]
    search: Callable[[Any, NDArray[np.float32], Mapping[str, int]], Index]
    beside: bool = False  # whether the vectors lie beside the index and not in it


INDEX_TYPES: Mapping[str, _Type] = MappingProxyType(
    {
        "flat": _Type(exact.make, exact.efforts, exact.Exact),
        "hnsw": _Type(hnsw.make, hnsw.efforts, hnsw.Graph),
        "ivf_pq": _Type(ivf_pq.make, ivf_pq.efforts, ivf_pq.Cells, beside=True),
    }
)


@dataclass(frozen=True)
class Choice:
    """What a request asks for: the type of the index (by size if None), and the least recall at 10 against an exact search."""

    type: str | None = None
    recall: float = RECALL

    def for_rows(self, count: int) -> str:
        """The type for `count` rows: few are searched exactly, whatever was asked for."""
        if count < LEAST_ROWS:
            return "flat"
        return self.type or ("flat" if count <= FLAT_ROWS else "hnsw" if count <= HNSW_ROWS else "ivf_pq")


@dataclass(frozen=True)
class Made:
    """An index as it was built: its type, how it is searched, and its recall at 10 on `queries` that are made of its vectors."""

    type: str
    parameters: Mapping[str, int]
    recall: float
    queries: int


def make(folder: Path, count: int, dimension: int, choice: Choice) -> Made:
    """Turn the flat file `vectors.faiss` in `folder` into the chosen index, with the least effort that reaches the recall.

    Raises InvalidRequest where the type that was asked for cannot reach it. Where nothing was asked for, the index is exact then.
    """
    made = _make(folder, choice.for_rows(count), count, dimension, choice.recall)
    if made.recall < choice.recall:
        if choice.type:
            raise InvalidRequest(
                f"a {choice.type} index finds {made.recall:.3f} of the nearest {RECALL_AT}, less than the recall of {choice.recall}",
                field="index_type",
                remedy="Ask for a lower `recall`, or leave `index_type` out.",
            )
        log.warning("index.recall_not_reached", extra={"fields": {"type": made.type, "recall": made.recall, "wanted": choice.recall}})
        made = _make(folder, "flat", count, dimension, choice.recall)
    if not INDEX_TYPES[made.type].beside:
        (folder / VECTORS).unlink(missing_ok=True)
    return made


def opened(folder: Path, type_name: str, count: int, dimension: int, parameters: Mapping[str, int]) -> tuple[Index, NDArray[np.float32]]:
    """The index in `folder`, memory-mapped, and its vectors (count, dimension). Raises InvalidRequest for a file that is not sound."""
    index = open_index(folder / INDEX, type_name, count, dimension)
    kind = INDEX_TYPES[type_name]
    if kind.beside:
        open_index(folder / VECTORS, "flat", count, dimension)
    vectors = vectors_of(folder / (VECTORS if kind.beside else INDEX), count, dimension)
    return kind.search(index, vectors, parameters), vectors


def _make(folder: Path, type_name: str, count: int, dimension: int, recall: float) -> Made:
    INDEX_TYPES[type_name].make(folder / VECTORS, folder / INDEX, count, dimension)
    if type_name == "flat":
        return Made(type_name, {}, 1.0, 0)
    queries, nearest = _sample(folder / VECTORS, count, dimension)
    return _tuned(folder, type_name, queries, nearest, recall, count)


def _sample(flat: Path, count: int, dimension: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Queries that are no members, and the squared distances to what is really nearest to each.

    A graph leads to its own members more surely than to what is asked for, so members as queries promise too much. A query is y + z - w of
    three different ones of the nearest to a member: about as far from the documents as they are from each other.
    """
    draw, vectors, exactly = np.random.default_rng(_SEED), vectors_of(flat, count, dimension), open_index(flat, "flat", count, dimension)
    members = np.sort(draw.choice(count, min(count, QUERIES), replace=False))
    _, near = exactly.search(np.array(vectors[members]), RECALL_AT + 1)
    three = draw.permuted(near[:, 1:], axis=1)[:, :3]
    y, z, w = (np.array(vectors[three[:, number]]) for number in range(3))
    queries = np.ascontiguousarray(y + z - w)
    squares, _ = exactly.search(queries, RECALL_AT)
    return queries, squares


def _tuned(folder: Path, type_name: str, queries: NDArray[np.float32], nearest: NDArray[np.float32], recall: float, count: int) -> Made:
    """The least effort whose recall reaches what is asked for by more than its standard error, or what comes nearest to that."""
    best = Made(type_name, {}, -1.0, len(queries))
    for parameters in INDEX_TYPES[type_name].efforts(count):
        index, _ = opened(folder, type_name, count, queries.shape[1], parameters)
        squares, _ = index.search(queries, nearest.shape[1], None)
        found = _found(squares, nearest)
        measured, error = round(float(found.mean()), 4), float(found.std()) / np.sqrt(len(found))
        if measured > best.recall:
            best = Made(type_name, dict(parameters), measured, len(queries))
        if measured - error >= recall:
            break
    return best


def _found(squares: NDArray[np.float32], nearest: NDArray[np.float32]) -> NDArray[np.float64]:
    """For each query the part of the nearest that was found, by distance: documents as near as the last of them count as it."""
    limit = nearest[:, -1:] * (1 + 1e-5) + 1e-6
    part: NDArray[np.float64] = (squares <= limit).mean(axis=1)
    return part
