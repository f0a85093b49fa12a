"""Hybrid search: what is near in meaning and what shares words, fused by their ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..contracts import Hybrid
from . import lexical
from .filters import Filter
from .segment import Segment

__all__ = ["Place", "fused"]


class Place(NamedTuple):
    """Where a document is: its segment and row; its L2 distance from the query, and what its ranks come to in a hybrid search.

    A tuple, because a search makes and sorts many.
    """

    distance: float
    segment: int
    row: int
    fusion: float | None = None


def fused(
    segments: Sequence[Segment], near: Sequence[Place], query: NDArray[np.float32], text: str, hybrid: Hybrid, condition: Filter | None
) -> list[Place]:
    """`near`, nearest first, and the best lexical finds for `text`, ordered by reciprocal rank fusion.

    A document's sum of weight / (constant + rank) over both lists (Cormack, Clarke and Buettcher 2009); every one has its own
    distance. Ranks of several segments are merged by BM25 as each segment counts it.
    """
    scores: dict[tuple[int, int], float] = {}
    for rank, place in enumerate(near[: hybrid.candidates], 1):
        scores[place.segment, place.row] = 1 / (hybrid.rank_constant + rank)
    for rank, key in enumerate(_lexical(segments, text, hybrid.candidates, condition), 1):
        scores[key] = scores.get(key, 0.0) + hybrid.lexical_weight / (hybrid.rank_constant + rank)
    places = {(place.segment, place.row): place for place in near}
    for number, segment in enumerate(segments):
        rows = np.array([row for one, row in scores if one == number and (one, row) not in places], dtype=np.int64)
        for row, square in zip(rows, segment.distances(query, rows), strict=True):
            places[number, int(row)] = Place(math.sqrt(square), number, int(row))
    found = [places[key]._replace(fusion=round(score, 9)) for key, score in scores.items()]
    return sorted(found, key=lambda place: (-(place.fusion or 0.0), place))


def _lexical(segments: Sequence[Segment], text: str, limit: int, condition: Filter | None) -> list[tuple[int, int]]:
    """Segment and row of the best lexical finds, best first."""
    found = [
        (rank, number, row) for number, segment in enumerate(segments) for rank, row in lexical.ranked(segment, text, limit, condition)
    ]
    return [(number, row) for _, number, row in sorted(found)[:limit]]
