"""Words and letters in a row as the features of a text: how a classifier without a neural network reads texts.

Training and serving count n-grams with this one function, and the ONNX graph begins at their numbers. The tokenizers that ONNX
itself has do not split as scikit-learn's do (letters within words, Unicode's words, its lower case), so they are not used.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["MODEL_TYPE", "NgramEncoding", "NgramTokenizer", "ngrams"]

MODEL_TYPE = "ngrams"  # in the config.json of a bundle
WORDS, LETTERS = (1, 2), (2, 5)
LEAST = 64  # numbers of a text at least, filled up with 0, so that a batch of so many numbers has few rows
WORD = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True)
class NgramEncoding:
    """The numbers of a text's n-grams, in the place of the ids of its tokens."""

    ids: list[int]
    type_ids: list[int]
    overflowing: list[list[int]]
    offsets: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class NgramTokenizer:
    """Stands where a transformer's tokenizer does. `vocabulary` maps an n-gram to its number, from 1; 0 is no n-gram."""

    vocabulary: Mapping[str, int]
    max_length: int

    @classmethod
    def open(cls, file: Path, max_length: int) -> NgramTokenizer:
        """The vocabulary in `file`. Raises ValueError, KeyError, TypeError or OSError for one that is none."""
        named: Any = json.loads(file.read_bytes())["ngrams"]
        return cls({str(each): number for number, each in enumerate(named, start=1)}, max_length)

    def save(self, file: Path) -> None:
        """Write the vocabulary in the order of its numbers."""
        named = sorted(self.vocabulary, key=self.vocabulary.__getitem__)
        file.write_text(json.dumps({"type": MODEL_TYPE, "words": WORDS, "letters": LETTERS, "ngrams": named}, ensure_ascii=False), "utf-8")

    def encode_batch(self, texts: Sequence[str]) -> list[NgramEncoding]:
        """The numbers of the texts' n-grams that are known, one for each time that it occurs, the first `max_length` of them."""
        return [self._encode(text) for text in texts]

    def num_special_tokens_to_add(self, is_pair: bool) -> int:
        """None."""
        return 0

    def get_vocab_size(self) -> int:
        """How many n-grams are known, with the one that is none."""
        return len(self.vocabulary) + 1

    def _encode(self, text: str) -> NgramEncoding:
        known = [number for each in ngrams(text) if (number := self.vocabulary.get(each))]
        ids = known[: self.max_length]
        ids += [0] * (LEAST - len(ids))
        rest = known[self.max_length :]
        return NgramEncoding(ids=ids, type_ids=[0] * len(ids), overflowing=[rest] if rest else [])


def ngrams(text: str) -> Iterator[str]:
    """Each word and pair of words, then 2 to 5 letters in a row within each word, a space at either end of it counted as a letter.

    Case and accents make no difference. What are words begins with "w", what are letters with "c".
    """
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    words = WORD.findall("".join(each for each in decomposed if not unicodedata.combining(each)))
    for size in range(WORDS[0], WORDS[1] + 1):
        for start in range(len(words) - size + 1):
            yield "w" + " ".join(words[start : start + size])
    for word in words:
        padded = f" {word} "
        for size in range(LETTERS[0], min(LETTERS[1], len(padded)) + 1):
            for start in range(len(padded) - size + 1):
                yield "c" + padded[start : start + size]
