"""Typing errors in the training rows, made anew for each epoch, and in a copy of the held-out rows. Imports no torch.

Whatever is drawn depends on the seed and on the place of the row alone, so that a run that is resumed sees the same.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..contracts import TrainDataset, TrainRequest, Typos
from ..samples.typos import with_typos
from .rows import Row, normalised

__all__ = ["COPIES", "Misspeller", "copies", "describe", "misspelt"]

COPIES = 3  # misspelt copies of each row for a model that does not go through epochs
TRIES = 200  # draws until a held-out text has a slip


def misspelt(rows: Sequence[Row], request: TrainRequest) -> list[Row]:
    """The held-out `rows` with one slip or more in each, the same for every model and split; none where they are not asked for.

    A slip is more than another case or space. A text of which no word may have one stays as it is.
    """
    probability, seed = _rate(request.dataset), request.model_train.seed
    return [Row(_wrong(row.text, probability, seed), row.label) for row in rows] if probability else []


def copies(rows: Sequence[Row], request: TrainRequest) -> list[Row]:
    """COPIES of all training `rows`, each with typing errors of its own; none where they are not asked for."""
    if request.dataset.augment is None:
        return []
    typos, seed = request.dataset.augment.typos, request.model_train.seed
    return [Row(_drawn(row.text, typos, seed, turn, at, 0), row.label) for turn in range(COPIES) for at, row in enumerate(rows)]


def describe(figures: Mapping[str, Any], request: TrainRequest, rows: Sequence[Row], wrong: Sequence[Row]) -> dict[str, Any]:
    """What the evaluation says under `misspelt`: `figures` without the confusion matrix, and how the rows `wrong` were made of `rows`."""
    changed = sum(normalised(row.text) != normalised(other.text) for row, other in zip(rows, wrong, strict=True))
    kept = {name: value for name, value in figures.items() if name != "confusion"}
    return {"misspelt": {**kept, "probability": _rate(request.dataset), "rows_changed": changed}}


@dataclass(frozen=True, kw_only=True)
class Misspeller:
    """Makes typing errors in the training `rows`; `ids` are their token ids, `encode` gives those of other texts."""

    typos: Typos
    seed: int
    rows: Sequence[Row]
    ids: Sequence[Sequence[int]]
    encode: Callable[[Iterable[str]], Iterable[list[int]]]

    def batches(self, epoch: int, batches: Iterable[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
        """Token ids of the rows of each batch. A row that comes twice in an epoch is misspelt in two ways."""
        turns: Counter[int] = Counter()
        for rows in batches:
            wrong: dict[int, str] = {}
            for position, row in enumerate(rows):
                plain = self.rows[row].text
                text = _drawn(plain, self.typos, self.seed, epoch, row, turns[row])
                turns[row] += 1
                if text != plain:
                    wrong[position] = text
            found = dict(zip(wrong, self.encode(list(wrong.values())), strict=True))
            yield [found.get(position, self.ids[row]) for position, row in enumerate(rows)]


def _rate(dataset: TrainDataset) -> float | None:
    """The share of words with a slip in the misspelt held-out rows, None where no such evaluation is asked for."""
    if dataset.misspelt_rate is not None:
        return dataset.misspelt_rate
    return dataset.augment.typos.probability if dataset.augment else None


def _wrong(text: str, probability: float, seed: int) -> str:
    draw = random.Random(f"{seed}.held-out.{text}")  # noqa: S311 - data, not secrets
    tries = (with_typos(text, draw, probability) for _ in range(TRIES))
    bare = normalised(text)  # `MIlano` or a second space is no slip for a model that does not see it
    return next((wrong for wrong in tries if normalised(wrong) != bare), text)


def _drawn(text: str, typos: Typos, seed: int, epoch: int, row: int, turn: int) -> str:
    draw = random.Random(f"{seed}.{epoch}.{row}.{turn}")  # noqa: S311 - data, not secrets
    return with_typos(text, draw, typos.probability) if draw.random() < typos.per_text else text
