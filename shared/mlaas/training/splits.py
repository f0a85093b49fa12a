"""Which rows are held out: a share of each label, and no text on both sides. Keeps a hash and a label's number of each row."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidRequest
from .rows import Row, normalised

__all__ = ["split"]

Indices = NDArray[np.int64]


class _Groups:
    """Rows with the same normalised text, in the order of their first rows; two texts that share a 64-bit hash only stay together."""

    def __init__(self, rows: Iterable[Row]) -> None:
        hashes, codes, numbers = array("Q"), array("i"), dict[str, int]()
        for row in rows:
            text = normalised(row.text).encode("utf-8", "surrogatepass")
            hashes.append(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little"))
            codes.append(numbers.setdefault(row.label, len(numbers)))
        self.labels = list(numbers)
        self.codes = codes
        _, first, of = np.unique(np.frombuffer(hashes, np.uint64), return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        by_row = rank[of]
        self._order = np.argsort(by_row, kind="stable")
        self._ends = np.concatenate([[0], np.cumsum(np.bincount(by_row))])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def rows(self, group: int) -> list[int]:
        """The indices of its rows, ascending."""
        return self._order[self._ends[group] : self._ends[group + 1]].tolist()  # type: ignore[no-any-return]

    def sizes(self, groups: Indices) -> int:
        """How many rows they have together."""
        return int((self._ends[groups + 1] - self._ends[groups]).sum())

    def by_label(self) -> dict[str, Indices]:
        """The groups under the commonest label of each, by label, sorted."""
        commonest = [Counter(self.codes[row] for row in self.rows(group)).most_common(1)[0][0] for group in range(len(self))]
        codes = np.asarray(commonest, np.int32)
        return {self.labels[code]: np.flatnonzero(codes == code) for code in sorted(set(commonest), key=self.labels.__getitem__)}


def split(rows: Iterable[Row], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of the training and of the held-out rows, ascending. Reads `rows` once.

    Each label gives `fraction` of its rows, rounded, to the held-out side and keeps at least one for training. Rows with
    the same normalised text stay together, under the commonest label among them.
    """
    groups = _Groups(rows)
    by_label = groups.by_label()
    left = Counter(groups.codes)
    draw = np.random.default_rng([seed, 1])
    held_out: set[int] = set()
    for members in by_label.values():
        quota = int(groups.sizes(members) * fraction + 0.5)
        held_out.update(_take(groups, members[draw.permutation(len(members))], quota, left))
    if not held_out:  # every label is too thin for the fraction: one row of the commonest label is better than none
        largest = max(by_label, key=lambda label: groups.sizes(by_label[label]))
        held_out.update(_take(groups, by_label[largest], 1, left))
    if not held_out:
        raise InvalidRequest(
            "the data set is too small to hold rows out for evaluation",
            field="dataset.train_test_split",
            remedy="Give more rows, or several rows of each label.",
        )
    return [index for index in range(len(groups.codes)) if index not in held_out], sorted(held_out)


def _take(groups: _Groups, wanted: Indices, quota: int, left: Counter[int]) -> list[int]:
    taken: list[int] = []
    for group in wanted.tolist():
        if len(taken) >= quota:
            break
        members = groups.rows(group)
        needed = Counter(groups.codes[row] for row in members)
        if all(left[code] > count for code, count in needed.items()):
            left.subtract(needed)
            taken.extend(members)
    return taken
