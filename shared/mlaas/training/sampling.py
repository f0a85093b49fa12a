"""Which rows an epoch holds, and in which batches: class balance, length groups, seeded order.

All of it depends on nothing but its arguments, so that a run can be repeated from its seed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["MEGABATCH", "ClassSampler", "grouped_batches", "quotas"]

MEGABATCH = 50  # batches that are sorted by length together, as in Hugging Face's LengthGroupedSampler
Indices = NDArray[np.int64]


def quotas(counts: Sequence[int], temper: float) -> list[int]:
    """How many rows of each class one epoch holds: as many in all as there are rows, shared by `count ** temper`.

    1 keeps every class as it is, 0 makes them equal; 0.5 is the usual middle (Mahajan et al. 2018). A class that has
    rows gets at least one.
    """
    shares = np.asarray(counts, dtype=np.float64) ** temper * (np.asarray(counts) > 0)
    exact = shares / shares.sum() * sum(counts)
    whole = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(whole - exact, kind="stable")
    whole[by_remainder[: sum(counts) - int(whole.sum())]] += 1
    return [max(int(quota), min(count, 1)) for quota, count in zip(whole, counts, strict=True)]


class ClassSampler:
    """Draws epochs by class. A class goes through all its rows before one of them comes again, also across epochs."""

    def __init__(self, classes: Sequence[int] | Indices, temper: float, seed: int) -> None:
        ids = np.asarray(classes, dtype=np.int64)
        self._members = [np.flatnonzero(ids == each) for each in range(int(ids.max()) + 1)]
        self.counts = [len(members) for members in self._members]
        self.quotas = quotas(self.counts, temper)
        self._waiting = [np.empty(0, dtype=np.int64) for _ in self._members]
        self._draw = np.random.default_rng([seed, 2])

    def __len__(self) -> int:
        return sum(self.quotas)

    def epoch(self) -> Indices:
        """Indices of the next epoch's rows, grouped by class."""
        return np.concatenate([self._next(each, quota) for each, quota in enumerate(self.quotas)])

    def _next(self, each: int, quota: int) -> Indices:
        while len(self._waiting[each]) < quota:
            self._waiting[each] = np.concatenate([self._waiting[each], self._draw.permutation(self._members[each])])
        drawn, self._waiting[each] = np.split(self._waiting[each], [quota])
        return drawn


def grouped_batches(indices: Indices, lengths: Sequence[int] | Indices, size: int, draw: np.random.Generator) -> list[Indices]:
    """`indices` in shuffled batches of at most `size` rows that are alike in length, so that little is padding."""
    shuffled, sizes = draw.permutation(indices), np.asarray(lengths)
    batches: list[Indices] = []
    for start in range(0, len(shuffled), size * MEGABATCH):
        mega = shuffled[start : start + size * MEGABATCH]
        by_length = mega[np.argsort(-sizes[mega], kind="stable")]
        batches += [by_length[at : at + size] for at in range(0, len(by_length), size)]
    return [batches[position] for position in draw.permutation(len(batches))]
