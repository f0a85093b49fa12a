"""Continuing the pretraining of a decoder: predicting each next token of plain texts, and where a text ends."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import AutoModelForCausalLM

from ..errors import InvalidRequest
from .batches import Batch, Collator, by_length, collator, encoded
from .checkpoints import load_model
from .masking import IGNORED
from .objectives import Preparation, Scored, Tally
from .rows import Row, read_rows
from .sampling import grouped_batches
from .splits import split
from .spool import ID_BYTES, Records, Selected, token_ids

__all__ = ["prepare"]

EVALUATION_BATCH = 16


@dataclass(kw_only=True)
class CausalLanguageModelling:
    """The task: see `objectives.Task`. Its rows are token ids of parts of texts, each at least two long."""

    model: Any
    fresh: frozenset[str]
    train: Records[list[int]]
    test: Records[list[int]]
    collate: Collator
    batch_size: int
    seed: int
    dataset: dict[str, Any]

    labels: tuple[str, ...] = ()

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        return -(-len(self.train) // self.batch_size)

    @property
    def notes(self) -> dict[str, Any]:
        """Which token ends a text."""
        return {"texts": {"end_token_id": self.model.config.eos_token_id}}

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Every part once, grouped by length, shuffled by the seed."""
        draw = np.random.default_rng([self.seed, 3, epoch])
        for indices in grouped_batches(np.arange(len(self.train)), self.train.sizes // ID_BYTES, self.batch_size, draw):
            yield self._batch([self.train[index] for index in indices.tolist()])

    def held_out(self) -> Iterator[Batch]:
        """The held-out parts, longest first."""
        for indices in by_length(self.test.sizes // ID_BYTES, EVALUATION_BATCH):
            yield self._batch([self.test[index] for index in indices])

    def score(self, batch: Batch) -> Scored:
        """Logits [tokens that have one before them, vocabulary]."""
        following = batch.targets[:, 1:]
        real = following != IGNORED
        return Scored(self.model(**batch.inputs).logits[:, :-1][real], following[real])

    def tally(self) -> Tally:
        """An empty tally."""
        return Tally()

    def evaluation(self, tally: Tally) -> dict[str, Any]:
        """Loss per token, the share of tokens that are predicted, and perplexity."""
        perplexity = math.exp(min(tally.loss, 700.0))
        return {"loss": tally.loss, "accuracy": tally.accuracy, "perplexity": perplexity, "predicted_tokens": tally.count}

    def _batch(self, rows: Sequence[list[int]]) -> Batch:
        return self.collate(rows, rows, fill=IGNORED)


def prepare(preparation: Preparation) -> CausalLanguageModelling:
    """Read, split and cut the texts, and load the model. Raises InvalidRequest for texts without two tokens."""
    request, checkpoint = preparation.request, preparation.checkpoint
    tokenizer = checkpoint.tokenizer
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    read = read_rows(preparation.table, request.dataset, labelled=False, work=preparation.work)
    sides = split(read.rows, request.dataset.train_test_split, request.model_train.seed)
    train, test = (_parts(Selected(read.rows, side), end, preparation) for side in sides)
    if not train or not test:
        raise InvalidRequest(
            "the texts hold nothing to predict", field="dataset.text_column", remedy="Give the column that holds the texts."
        )
    loaded = load_model(AutoModelForCausalLM, checkpoint)
    # What serves the model reads here how texts begin and end.
    loaded.model.config.eos_token_id, loaded.model.config.bos_token_id = end, tokenizer.bos_token_id
    loaded.model.config.pad_token_id = tokenizer.pad_token_id
    return CausalLanguageModelling(
        model=loaded.model,
        fresh=loaded.fresh,
        train=train,
        test=test,
        collate=collator(checkpoint.config, tokenizer),
        batch_size=request.model_train.batch_size,
        seed=request.model_train.seed,
        dataset={
            "samples_train": len(sides[0]),
            "samples_test": len(sides[1]),
            "tokens": int(train.sizes.sum()) // ID_BYTES,
            "dropped_empty": read.dropped_empty,
            "dropped_duplicates": read.dropped_duplicates,
            "parts_train": len(train),
            "parts_test": len(test),
            "classes": 0,
        },
    )


def _parts(rows: Sequence[Row], end: int | None, preparation: Preparation) -> Records[list[int]]:
    """Texts cut where they are longer than the model reads, the last part of each with the token that ends a text."""
    parts = token_ids(preparation.work)
    for encoding in encoded(preparation.checkpoint.tokenizer, (row.text for row in rows), preparation.max_length - 1):
        pieces = [list(piece.ids) for piece in (encoding, *encoding.overflowing)]
        if end is not None and pieces[-1][-1:] != [end]:
            pieces[-1].append(end)
        parts.extend(ids for ids in pieces if len(ids) > 1)
        preparation.tick()
    return parts
