"""Whole-word masking: which tokens of a text are hidden, and by what.

A word is hidden whole: all its tokens become the mask token (80 of 100 words), random tokens (10) or stay (10), and all of
them are to be predicted (Devlin et al. 2019, and the whole-word variant released with BERT).
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["IGNORED", "MASKED_FRACTION", "Chunk", "Masker"]

IGNORED = -100  # the target at which torch's cross entropy looks away
MASKED_FRACTION = 0.1


@dataclass(frozen=True)
class Chunk:
    """Tokens of one text, special ones included; `words` says which word each belongs to, None for special tokens."""

    ids: tuple[int, ...]
    words: tuple[int | None, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def to_bytes(self) -> bytes:
        """The ids, then the words, in 4 bytes each; -1 is no word."""
        return array("i", [*self.ids, *(-1 if word is None else word for word in self.words)]).tobytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> Chunk:
        """The reverse of `to_bytes`."""
        numbers = array("i", content).tolist()
        half = len(numbers) // 2
        return cls(tuple(numbers[:half]), tuple(None if word < 0 else word for word in numbers[half:]))


@dataclass(frozen=True, kw_only=True)
class Masker:
    """Hides words. `vocabulary` holds the ids that a random token is drawn from: no special ones."""

    mask_id: int
    vocabulary: NDArray[np.int64]
    fraction: float = MASKED_FRACTION

    def hide(self, chunk: Chunk, draw: np.random.Generator) -> tuple[list[int], list[int]]:
        """Ids with words hidden, and targets of the same length, IGNORED where nothing is hidden. At least one word is."""
        ids, targets = list(chunk.ids), [IGNORED] * len(chunk)
        for places in self._chosen(_places(chunk.words), draw):
            fate = draw.random()
            for place in places:
                targets[place] = chunk.ids[place]
                if fate < 0.8:
                    ids[place] = self.mask_id
                elif fate < 0.9:
                    ids[place] = int(draw.choice(self.vocabulary))
        return ids, targets

    def _chosen(self, words: Sequence[list[int]], draw: np.random.Generator) -> list[list[int]]:
        budget = max(1, round(self.fraction * sum(map(len, words))))
        chosen: list[list[int]] = []
        for position in draw.permutation(len(words)):
            word = words[position]
            if budget <= 0:
                break
            if not chosen or len(word) <= budget:
                chosen.append(word)
                budget -= len(word)
        return chosen


def _places(words: Sequence[int | None]) -> list[list[int]]:
    places: dict[int, list[int]] = defaultdict(list)
    for place, word in enumerate(words):
        if word is not None:
            places[word].append(place)
    return list(places.values())
