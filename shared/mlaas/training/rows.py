"""The rows of a training run: read, cleaned and kept on disk."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..contracts import TrainDataset
from ..errors import InvalidRequest
from .cleanup import cleaner
from .spool import Records, packed, unpacked

__all__ = ["Row", "Rows", "check_labels", "clean", "hashed", "identity", "normalised", "read_rows"]


@dataclass(frozen=True)
class Row:
    """A text and its label; the label is empty where the objective needs none."""

    text: str
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows that are left, in the order of the table and on disk, and how many were dropped and why."""

    rows: Sequence[Row]
    dropped_empty: int
    dropped_unlabelled: int
    dropped_duplicates: int


def read_rows(table: Path, dataset: TrainDataset, *, labelled: bool, work: Path | None = None) -> Rows:
    """The cleaned rows of `table`, kept in the folder `work`.

    Raises InvalidRequest if a column is missing or fewer than two rows are left.
    """
    from .. import datasets

    columns = [dataset.text_column, dataset.label_column] if labelled else [dataset.text_column]
    cleaned = clean(datasets.read(table, columns), dataset, labelled=labelled, work=work)
    if len(cleaned.rows) < 2:
        raise InvalidRequest(
            f"the data set has {len(cleaned.rows)} usable rows: at least two are needed",
            field="dataset.path",
            remedy=f"Give a table whose column `{dataset.text_column}` holds texts.",
        )
    return cleaned


def clean(records: Iterable[dict[str, Any]], dataset: TrainDataset, *, labelled: bool, work: Path | None = None) -> Rows:
    """The first of every distinct (text, label) whose text, cleaned, and label where one is needed, is not empty."""
    kept = Records(work, lambda row: packed(row.text, row.label), lambda content: Row(*unpacked(content)))
    seen: set[bytes] = set()
    tidy, same = cleaner(dataset.clean), identity(dataset)
    empty = unlabelled = duplicates = 0
    for record in records:
        row = Row(tidy(_raw(record[dataset.text_column])), _string(record[dataset.label_column]) if labelled else "")
        if not row.text:
            empty += 1
        elif labelled and not row.label:
            unlabelled += 1
        elif (key := hashed(same(row.text), row.label)) in seen:
            duplicates += 1
        else:
            seen.add(key)
            kept.append(row)
    return Rows(rows=kept, dropped_empty=empty, dropped_unlabelled=unlabelled, dropped_duplicates=duplicates)


def identity(dataset: TrainDataset) -> Callable[[str], str]:
    """What of a text two rows must have in common to be duplicates."""
    return normalised if dataset.deduplicate == "normalised" else str


def hashed(*texts: str) -> bytes:
    """What stands for texts where they are only compared: 16 bytes."""
    return hashlib.blake2b(packed(*texts), digest_size=16).digest()


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


def _string(value: object) -> str:
    return _raw(value).strip()


def _raw(value: object) -> str:
    """Not stripped: the space at the end of `UniversitÃ\xa0` is half of a letter, which only a clean-up knows."""
    return "" if value is None else str(value)
