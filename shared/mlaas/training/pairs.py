"""Pairs of texts: read, cleaned, and split so that no text stands on both sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import datasets
from ..contracts import TrainDataset
from ..errors import InvalidRequest
from .cleanup import cleaner
from .rows import Row, hashed, identity, normalised
from .splits import split
from .spool import Records, packed, unpacked

__all__ = ["Pair", "Pairs", "read_pairs", "split_pairs"]


@dataclass(frozen=True)
class Pair:
    """Two texts and their label; the label is empty where the objective needs none."""

    first: str
    second: str
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The distinct pairs in the order of the table, on disk, and how many were dropped."""

    pairs: Sequence[Pair]
    dropped_empty: int
    dropped_duplicates: int


def read_pairs(table: Path, dataset: TrainDataset, *, labelled: bool, work: Path | None = None) -> Pairs:
    """The pairs of the columns `text_column` and `pair_column`. Raises InvalidRequest if fewer than two are usable."""
    assert dataset.pair_column, "checked when the training was accepted"
    columns = [dataset.text_column, dataset.pair_column, *([dataset.label_column] if labelled else [])]
    tidy, same = cleaner(dataset.clean), identity(dataset)
    kept = Records(work, lambda pair: packed(pair.first, pair.second, pair.label), lambda content: Pair(*unpacked(content)))
    seen: set[bytes] = set()
    empty = duplicates = 0
    for row in datasets.read(table, columns):
        first, second, *label = ("" if row[name] is None else str(row[name]) for name in columns)
        pair = Pair(tidy(first), tidy(second), *map(str.strip, label))
        if not pair.first or not pair.second or (labelled and not pair.label):
            empty += 1
        elif (key := hashed(same(pair.first), same(pair.second), pair.label)) in seen:
            duplicates += 1
        else:
            seen.add(key)
            kept.append(pair)
    if len(kept) < 2:
        raise InvalidRequest(
            f"the data set has {len(kept)} usable pairs: at least two are needed",
            field="dataset.path",
            remedy=f"Give a table whose columns `{columns[0]}` and `{columns[1]}` hold texts.",
        )
    return Pairs(pairs=kept, dropped_empty=empty, dropped_duplicates=duplicates)


def split_pairs(pairs: Sequence[Pair], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of the training and of the held-out pairs. Pairs that share a text, directly or through others, stay together.

    Where that ties more than half of all pairs together, as when a few texts stand in most of them, only pairs with the same
    first text do.
    """
    groups = _linked(pairs)
    if Counter(groups).most_common(1)[0][1] > len(pairs) / 2:
        groups = [_hash(pair.first) for pair in pairs]
    return split((Row(group.hex(), pair.label) for group, pair in zip(groups, pairs, strict=True)), fraction, seed)


def _linked(pairs: Sequence[Pair]) -> list[bytes]:
    """For each pair the hash of the text that stands for all pairs which it is linked to (union-find)."""
    leader: dict[bytes, bytes] = {}

    def lead(text: bytes) -> bytes:
        while (above := leader.setdefault(text, text)) != text:
            leader[text] = leader.setdefault(above, above)
            text = above
        return text

    for pair in pairs:
        leader[lead(_hash(pair.first))] = lead(_hash(pair.second))
    return [lead(_hash(pair.first)) for pair in pairs]


def _hash(text: str) -> bytes:
    return hashed(normalised(text))
