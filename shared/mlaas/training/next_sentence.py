"""Fine-tuning an encoder to say whether one sentence follows another (Devlin et al. 2019).

Pairs are made from texts: each sentence with its successor, and with a sentence of another text of the same side of the split.
Or they are given as columns, with labels.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForNextSentencePrediction, AutoModelForSequenceClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_NEXT_SENTENCE_PREDICTION_MAPPING_NAMES

from ..errors import InvalidRequest
from .batches import Batch, Collator, by_length, collator, encoded
from .checkpoints import load_model
from .confusion import ConfusionTally
from .objectives import Preparation, Scored
from .pairs import Pair, read_pairs, split_pairs
from .rows import read_rows
from .sampling import grouped_batches
from .scores import classification_figures
from .splits import split
from .spool import ID_BYTES, Records, Selected, packed, token_ids, unpacked

__all__ = ["LABELS", "prepare", "sentences"]

LABELS = ("is_next", "not_next")  # in the order of BERT's own head
YES, NO = frozenset({"1", "true", "yes", "is_next", "isnext"}), frozenset({"0", "false", "no", "not_next", "notnext"})
EVALUATION_BATCH = 64
# A sentence ends with a full stop, question or exclamation mark, perhaps quoted, before a space and what can begin one.
END = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+(?=[\"'“‘(\[]*[A-Z0-9À-Þ])|\n\s*\n")


@dataclass(frozen=True)
class Encoded:
    """Token ids and types of each pair, on disk, and whether its second sentence follows: the index in LABELS."""

    ids: Records[list[int]]
    types: Records[list[int]]
    classes: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each pair."""
        return self.ids.sizes // ID_BYTES


class Made(Sequence[Pair]):
    """Pairs of `texts`, by their numbers [pairs, 2]: each sentence with its successor, then with one of another text."""

    def __init__(self, texts: Records[str], numbers: array[int]) -> None:
        self._texts, self._numbers = texts, numbers

    def __len__(self) -> int:
        return len(self._numbers) // 2

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Pair]: ...
    def __getitem__(self, index: int | slice) -> Pair | Sequence[Pair]:
        if isinstance(index, slice):
            return Selected(self, range(len(self))[index])
        at = range(len(self))[index]
        return Pair(self._texts[self._numbers[2 * at]], self._texts[self._numbers[2 * at + 1]], LABELS[at % 2])


@dataclass(kw_only=True)
class NextSentencePrediction:
    """The task: see `objectives.Task`."""

    model: Any
    fresh: frozenset[str]
    train: Encoded
    test: Encoded
    collate: Collator
    batch_size: int
    seed: int
    dataset: dict[str, Any]
    made_from: str

    labels: tuple[str, ...] = LABELS

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        return -(-len(self.train.ids) // self.batch_size)

    @property
    def notes(self) -> dict[str, Any]:
        """Where the pairs come from."""
        return {"pairs": {"made_from": self.made_from}}

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Every pair once, grouped by length, shuffled by the seed."""
        draw = np.random.default_rng([self.seed, 3, epoch])
        for indices in grouped_batches(np.arange(len(self.train.ids)), self.train.lengths, self.batch_size, draw):
            yield self._batch(self.train, indices.tolist())

    def held_out(self) -> Iterator[Batch]:
        """The held-out pairs, longest first."""
        for indices in by_length(self.test.lengths, EVALUATION_BATCH):
            yield self._batch(self.test, indices)

    def score(self, batch: Batch) -> Scored:
        """Logits [pairs, 2]."""
        return Scored(self.model(**batch.inputs).logits, batch.targets)

    def tally(self) -> ConfusionTally:
        """An empty confusion matrix."""
        return ConfusionTally(labels=LABELS)

    def evaluation(self, tally: ConfusionTally) -> dict[str, Any]:
        """Loss, accuracy, the F1 of "it follows", figures of both classes and the confusion matrix."""
        figures = classification_figures(tally.matrix, LABELS)
        return {"loss": tally.loss, "f1": figures["per_class"][LABELS[0]]["f1"], **figures}

    def _batch(self, rows: Encoded, indices: list[int]) -> Batch:
        return self.collate(
            [rows.ids[index] for index in indices], torch.from_numpy(rows.classes[indices]), types=[rows.types[index] for index in indices]
        )


def prepare(preparation: Preparation) -> NextSentencePrediction:
    """Make or read the pairs, tokenize them, and load the model, with BERT's own head where the architecture has one."""
    request, checkpoint = preparation.request, preparation.checkpoint
    given = request.dataset.pair_column is not None
    (train, test), dropped = (_given if given else _made)(preparation)
    own = checkpoint.config.model_type in MODEL_FOR_NEXT_SENTENCE_PREDICTION_MAPPING_NAMES
    loaded = load_model(
        AutoModelForNextSentencePrediction if own else AutoModelForSequenceClassification,
        checkpoint,
        num_labels=2,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    sides = [_encoded(pairs, preparation) for pairs in (train, test)]
    return NextSentencePrediction(
        model=loaded.model,
        fresh=loaded.fresh,
        train=sides[0],
        test=sides[1],
        collate=collator(checkpoint.config, checkpoint.tokenizer),
        batch_size=request.model_train.batch_size,
        seed=request.model_train.seed,
        made_from="columns" if given else "sentences of texts",
        dataset={"samples_train": len(train), "samples_test": len(test), "tokens": int(sides[0].lengths.sum()), **dropped, "classes": 2},
    )


def sentences(text: str) -> list[str]:
    """The sentences of a text, by their punctuation: an abbreviation before a capital letter is taken for an end."""
    return [part.strip() for part in END.split(text) if part and part.strip()]


def _given(preparation: Preparation) -> tuple[list[Sequence[Pair]], dict[str, int]]:
    request = preparation.request
    read = read_pairs(preparation.table, request.dataset, labelled=True, work=preparation.work)
    strange = next((pair.label for pair in read.pairs if pair.label.casefold() not in YES | NO), None)
    if strange is not None:
        raise InvalidRequest(
            f"the label `{strange[:50]}` does not say whether a sentence follows",
            field="dataset.label_column",
            remedy="Label pairs is_next or not_next; 1 or 0, true or false will do.",
        )
    pairs = _spooled(preparation)
    pairs.extend(Pair(pair.first, pair.second, LABELS[pair.label.casefold() in NO]) for pair in read.pairs)
    sides = split_pairs(pairs, request.dataset.train_test_split, request.model_train.seed)
    return [Selected(pairs, side) for side in sides], {"dropped_empty": read.dropped_empty, "dropped_duplicates": read.dropped_duplicates}


def _spooled(preparation: Preparation) -> Records[Pair]:
    return Records(preparation.work, lambda pair: packed(pair.first, pair.second, pair.label), lambda content: Pair(*unpacked(content)))


def _made(preparation: Preparation) -> tuple[list[Sequence[Pair]], dict[str, int]]:
    request = preparation.request
    read = read_rows(preparation.table, request.dataset, labelled=False, work=preparation.work)
    sides = split(read.rows, request.dataset.train_test_split, request.model_train.seed)
    made: list[Sequence[Pair]] = [
        _pairs((sentences(row.text) for row in Selected(read.rows, side)), [request.model_train.seed, 4, number], preparation.work)
        for number, side in enumerate(sides)
    ]
    if not all(made):
        raise InvalidRequest(
            "there are too few texts of two sentences or more to make pairs of",
            field="dataset.text_column",
            remedy="Give the column that holds texts of several sentences, or pairs: `pair_column` and `label_column`.",
        )
    return made, {"dropped_empty": read.dropped_empty, "dropped_duplicates": read.dropped_duplicates}


def _pairs(texts: Iterable[Sequence[str]], seed: Sequence[int], work: Path | None) -> Made:
    """Twice as many pairs as there are sentences with a successor; none where all sentences are of one text."""
    draw = np.random.default_rng(list(seed))
    every, owners, numbers = Records(work, packed, lambda content: unpacked(content)[0]), array("q"), array("q")
    for number, parts in enumerate(texts):
        every.extend(parts)
        owners.extend([number] * len(parts))
    if len(set(owners)) < 2:
        return Made(every, numbers)
    for first, (owner, following) in enumerate(pairwise(owners)):
        if owner != following:
            continue
        other = int(draw.integers(len(every)))
        while owners[other] == owner:
            other = int(draw.integers(len(every)))
        numbers.extend((first, first + 1, first, other))
    return Made(every, numbers)


def _encoded(pairs: Sequence[Pair], preparation: Preparation) -> Encoded:
    ids, types = token_ids(preparation.work), token_ids(preparation.work)
    texts = ((pair.first, pair.second) for pair in pairs)
    for encoding in encoded(preparation.checkpoint.tokenizer, texts, preparation.max_length):
        ids.append(list(encoding.ids))
        types.append(list(encoding.type_ids))
        preparation.tick()
    return Encoded(ids, types, np.fromiter((LABELS.index(pair.label) for pair in pairs), np.int64, len(pairs)))
