"""Texts as token ids, each with the number of its class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .batches import encoded
from .objectives import Preparation
from .rows import Row
from .spool import ID_BYTES, Records, token_ids

__all__ = ["Labelled", "encoder", "labelled"]


@dataclass(frozen=True)
class Labelled:
    """Token ids of each text, on disk, and its class."""

    ids: Records[list[int]]
    classes: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text."""
        return self.ids.sizes // ID_BYTES


def labelled(rows: Sequence[Row], labels: tuple[str, ...], preparation: Preparation) -> Labelled:
    """`rows` tokenized; the class of each is the place of its label in `labels`."""
    number = {label: index for index, label in enumerate(labels)}
    ids, encode = token_ids(preparation.work), encoder(preparation)
    ids.extend(encode(row.text for row in rows))
    return Labelled(ids, np.fromiter((number[row.label] for row in rows), np.int64, len(rows)))


def encoder(preparation: Preparation) -> Callable[[Iterable[str]], Iterator[list[int]]]:
    """The token ids of each text, cut at the run's maximum; ticks as it goes."""

    def encode(texts: Iterable[str]) -> Iterator[list[int]]:
        for encoding in encoded(preparation.checkpoint.tokenizer, texts, preparation.max_length):
            yield list(encoding.ids)
            preparation.tick()

    return encode
