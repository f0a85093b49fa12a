"""Texts as token ids, each with the number of its class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .batches import encoded
from .objectives import Preparation
from .rows import Row

__all__ = ["Labelled", "encoder", "labelled"]


@dataclass(frozen=True)
class Labelled:
    """Token ids of each text, and its class."""

    ids: list[list[int]]
    classes: list[int]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each text."""
        return [len(row) for row in self.ids]


def labelled(rows: Sequence[Row], labels: tuple[str, ...], preparation: Preparation) -> Labelled:
    """`rows` tokenized; the class of each is the place of its label in `labels`."""
    number = {label: index for index, label in enumerate(labels)}
    return Labelled(encoder(preparation)([row.text for row in rows]), [number[row.label] for row in rows])


def encoder(preparation: Preparation) -> Callable[[Sequence[str]], list[list[int]]]:
    """The token ids of each text, cut at the run's maximum; ticks as it goes."""

    def encode(texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = []
        for encoding in encoded(preparation.checkpoint.tokenizer, texts, preparation.max_length):
            ids.append(list(encoding.ids))
            preparation.tick()
        return ids

    return encode
