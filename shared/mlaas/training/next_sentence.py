"""Fine-tuning an encoder to say whether one sentence follows another (Devlin et al. 2019).

Pairs are made from texts: each sentence with its successor, and with a sentence of another text of the same side of the split.
Or they are given as columns, with labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForNextSentencePrediction, AutoModelForSequenceClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_NEXT_SENTENCE_PREDICTION_MAPPING_NAMES

from ..errors import InvalidRequest
from .batches import Batch, Collator, by_length, collator, encoded
from .checkpoints import load_model
from .confusion import ConfusionTally
from .objectives import Preparation, Scored
from .pairs import Pair, read_pairs, split_pairs
from .rows import read_rows, split
from .sampling import grouped_batches
from .scores import classification_figures

__all__ = ["LABELS", "prepare", "sentences"]

LABELS = ("is_next", "not_next")  # in the order of BERT's own head
YES, NO = frozenset({"1", "true", "yes", "is_next", "isnext"}), frozenset({"0", "false", "no", "not_next", "notnext"})
EVALUATION_BATCH = 64
# A sentence ends with a full stop, question or exclamation mark, perhaps quoted, before a space and what can begin one.
END = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+(?=[\"'“‘(\[]*[A-Z0-9À-Þ])|\n\s*\n")


@dataclass(frozen=True)
class Encoded:
    """Token ids and types of each pair, and whether its second sentence follows: the index in LABELS."""

    ids: list[list[int]]
    types: list[list[int]]
    classes: list[int]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each pair."""
        return [len(row) for row in self.ids]


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
            [rows.ids[index] for index in indices],
            torch.tensor([rows.classes[index] for index in indices]),
            types=[rows.types[index] for index in indices],
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
        dataset={"samples_train": len(train), "samples_test": len(test), "tokens": sum(sides[0].lengths), **dropped, "classes": 2},
    )


def sentences(text: str) -> list[str]:
    """The sentences of a text, by their punctuation: an abbreviation before a capital letter is taken for an end."""
    return [part.strip() for part in END.split(text) if part and part.strip()]


def _given(preparation: Preparation) -> tuple[list[list[Pair]], dict[str, int]]:
    request = preparation.request
    read = read_pairs(preparation.table, request.dataset, labelled=True)
    strange = next((pair.label for pair in read.pairs if pair.label.casefold() not in YES | NO), None)
    if strange is not None:
        raise InvalidRequest(
            f"the label `{strange[:50]}` does not say whether a sentence follows",
            field="dataset.label_column",
            remedy="Label pairs is_next or not_next; 1 or 0, true or false will do.",
        )
    pairs = [Pair(pair.first, pair.second, LABELS[pair.label.casefold() in NO]) for pair in read.pairs]
    sides = split_pairs(pairs, request.dataset.train_test_split, request.model_train.seed)
    return [[pairs[index] for index in side] for side in sides], {
        "dropped_empty": read.dropped_empty,
        "dropped_duplicates": read.dropped_duplicates,
    }


def _made(preparation: Preparation) -> tuple[list[list[Pair]], dict[str, int]]:
    request = preparation.request
    read = read_rows(preparation.table, request.dataset, labelled=False)
    sides = split(read.rows, request.dataset.train_test_split, request.model_train.seed)
    made = [
        _pairs([sentences(read.rows[index].text) for index in side], [request.model_train.seed, 4, number])
        for number, side in enumerate(sides)
    ]
    if not all(made):
        raise InvalidRequest(
            "there are too few texts of two sentences or more to make pairs of",
            field="dataset.text_column",
            remedy="Give the column that holds texts of several sentences, or pairs: `pair_column` and `label_column`.",
        )
    return made, {"dropped_empty": read.dropped_empty, "dropped_duplicates": read.dropped_duplicates}


def _pairs(texts: Sequence[Sequence[str]], seed: Sequence[int]) -> list[Pair]:
    """Twice as many pairs as there are sentences with a successor; none where all sentences are of one text."""
    draw = np.random.default_rng(list(seed))
    owners = [number for number, parts in enumerate(texts) for _ in parts]
    every = [part for parts in texts for part in parts]
    if len(set(owners)) < 2:
        return []
    pairs: list[Pair] = []
    for number, parts in enumerate(texts):
        for first, second in pairwise(parts):
            other = int(draw.integers(len(every)))
            while owners[other] == number:
                other = int(draw.integers(len(every)))
            pairs += [Pair(first, second, LABELS[0]), Pair(first, every[other], LABELS[1])]
    return pairs


def _encoded(pairs: Sequence[Pair], preparation: Preparation) -> Encoded:
    ids, types = [], []
    texts = [(pair.first, pair.second) for pair in pairs]
    for encoding in encoded(preparation.checkpoint.tokenizer, texts, preparation.max_length):
        ids.append(list(encoding.ids))
        types.append(list(encoding.type_ids))
        preparation.tick()
    return Encoded(ids, types, [LABELS.index(pair.label) for pair in pairs])
