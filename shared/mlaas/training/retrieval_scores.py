"""How well vectors find what belongs to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["retrieval_figures"]

DEPTHS = (1, 5, 10)
SLICE = 256  # queries compared at once


def retrieval_figures(queries: NDArray[np.float32], documents: NDArray[np.float32], numbers: Sequence[int]) -> dict[str, float | int]:
    """Recall@1, @5, @10, the mean reciprocal rank, and how many documents were searched.

    Row i of `queries` (n, d) belongs to row i of `documents` (n, d); rows with the same of `numbers` are one document, which is
    searched once. A document as near as the right one counts as nearer, so that equal vectors earn nothing.
    """
    _, once, place = np.unique(np.asarray(numbers), return_index=True, return_inverse=True)
    pool = documents[once]
    ranks = np.concatenate([_ranks(queries[at : at + SLICE], pool, place[at : at + SLICE]) for at in range(0, len(queries), SLICE)])
    figures: dict[str, float | int] = {f"recall_at_{depth}": float((ranks <= depth).mean()) for depth in DEPTHS}
    return {**figures, "mrr": float((1.0 / ranks).mean()), "documents": len(pool)}


def _ranks(queries: NDArray[np.float32], pool: NDArray[np.float32], place: NDArray[np.int64]) -> NDArray[np.int64]:
    similar = queries @ pool.T
    right = similar[np.arange(len(queries)), place]
    return np.asarray((similar >= right[:, None]).sum(axis=1))
