"""The rows of a training run: read, cleaned, and split so that no text stands on both sides."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..contracts import TrainDataset
from ..errors import InvalidRequest
from .cleanup import cleaner

__all__ = ["Row", "Rows", "check_labels", "clean", "identity", "normalised", "read_rows", "split"]


@dataclass(frozen=True)
class Row:
    """A text and its label; the label is empty where the objective needs none."""

    text: str
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows that are left, in the order of the table, and how many were dropped and why."""

    rows: tuple[Row, ...]
    dropped_empty: int
    dropped_unlabelled: int
    dropped_duplicates: int


def read_rows(table: Path, dataset: TrainDataset, *, labelled: bool) -> Rows:
    """The cleaned rows of `table`. Raises InvalidRequest if a column is missing or fewer than two rows are left."""
    from .. import datasets

    columns = [dataset.text_column, dataset.label_column] if labelled else [dataset.text_column]
    cleaned = clean(datasets.read(table, columns), dataset, labelled=labelled)
    if len(cleaned.rows) < 2:
        raise InvalidRequest(
            f"the data set has {len(cleaned.rows)} usable rows: at least two are needed",
            field="dataset.path",
            remedy=f"Give a table whose column `{dataset.text_column}` holds texts.",
        )
    return cleaned


def clean(records: Iterable[dict[str, Any]], dataset: TrainDataset, *, labelled: bool) -> Rows:
    """The first of every distinct (text, label) whose text, cleaned, and label where one is needed, is not empty."""
    kept: list[Row] = []
    seen: set[tuple[str, str]] = set()
    tidy, same = cleaner(dataset.clean), identity(dataset)
    empty = unlabelled = duplicates = 0
    for record in records:
        row = Row(tidy(_raw(record[dataset.text_column])), _string(record[dataset.label_column]) if labelled else "")
        if not row.text:
            empty += 1
        elif labelled and not row.label:
            unlabelled += 1
        elif (key := (same(row.text), row.label)) in seen:
            duplicates += 1
        else:
            seen.add(key)
            kept.append(row)
    return Rows(rows=tuple(kept), dropped_empty=empty, dropped_unlabelled=unlabelled, dropped_duplicates=duplicates)


def identity(dataset: TrainDataset) -> Callable[[str], str]:
    """What of a text two rows must have in common to be duplicates."""
    return normalised if dataset.deduplicate == "normalised" else str


def check_labels(rows: Sequence[Row]) -> tuple[str, ...]:
    """The distinct labels, sorted. Raises InvalidRequest where there is only one, or nearly as many as there are rows."""
    labels = tuple(sorted({row.label for row in rows}))
    if len(labels) < 2:
        raise InvalidRequest(
            f"the data set has only one label, `{labels[0]}`", field="dataset.label_column", remedy="Give a column with two labels or more."
        )
    if len(labels) > len(rows) // 2 and len(labels) > 100:
        raise InvalidRequest(
            f"the data set has {len(labels)} labels for {len(rows)} rows",
            field="dataset.label_column",
            remedy="Give the column that holds classes, not free text.",
        )
    return labels


def normalised(text: str) -> str:
    """`text` without case, diacritics, punctuation and spacing: what may not stand on both sides of the split."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(character for character in decomposed if not unicodedata.combining(character))
    return " ".join(re.findall(r"\w+", bare)) or text


def split(rows: Sequence[Row], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of the training and of the held-out rows, ascending.

    Each label gives `fraction` of its rows, rounded, to the held-out side and keeps at least one for training. Rows with
    the same normalised text stay together, under the commonest label among them.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        groups[normalised(row.text)].append(index)
    by_label: dict[str, list[list[int]]] = defaultdict(list)
    for group in groups.values():
        by_label[Counter(rows[index].label for index in group).most_common(1)[0][0]].append(group)
    left = Counter(row.label for row in rows)
    draw = np.random.default_rng([seed, 1])
    held_out: set[int] = set()
    for label in sorted(by_label):
        shuffled = [by_label[label][position] for position in draw.permutation(len(by_label[label]))]
        held_out.update(_take(shuffled, _quota(shuffled, fraction), rows, left))
    if not held_out:  # every label is too thin for the fraction: one row of the commonest label is better than none
        largest = max(sorted(by_label), key=lambda label: sum(map(len, by_label[label])))
        held_out.update(_take(by_label[largest], 1, rows, left))
    if not held_out:
        raise InvalidRequest(
            "the data set is too small to hold rows out for evaluation",
            field="dataset.train_test_split",
            remedy="Give more rows, or several rows of each label.",
        )
    return [index for index in range(len(rows)) if index not in held_out], sorted(held_out)


def _quota(groups: Sequence[Sequence[int]], fraction: float) -> int:
    return int(sum(map(len, groups)) * fraction + 0.5)


def _take(groups: Iterable[Sequence[int]], quota: int, rows: Sequence[Row], left: Counter[str]) -> list[int]:
    taken: list[int] = []
    for group in groups:
        if len(taken) >= quota:
            break
        needed = Counter(rows[index].label for index in group)
        if all(left[label] > count for label, count in needed.items()):
            left.subtract(needed)
            taken.extend(group)
    return taken


def _string(value: object) -> str:
    return _raw(value).strip()


def _raw(value: object) -> str:
    """Not stripped: the space at the end of `UniversitÃ\xa0` is half of a letter, which only a clean-up knows."""
    return "" if value is None else str(value)
