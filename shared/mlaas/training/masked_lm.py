"""Continuing the pretraining of an encoder: predicting whole words that were hidden in plain texts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForMaskedLM

from ..errors import InvalidRequest
from .batches import Batch, Collator, by_length, collator, encoded
from .checkpoints import load_model
from .masking import IGNORED, Chunk, Masker
from .objectives import Preparation, Scored, Tally
from .rows import Row, read_rows
from .sampling import grouped_batches
from .splits import split
from .spool import ID_BYTES, Records, Selected

__all__ = ["prepare"]

EVALUATION_SEED = 20_240_229  # what is hidden in the held-out texts is the same for every run, so that runs compare
EVALUATION_BATCH = 16
# The module that turns hidden states into logits, as transformers calls it in one architecture or another.
HEADS = ("cls", "lm_head", "generator_predictions", "predictions", "vocab_transform", "head")


@dataclass(kw_only=True)
class MaskedLanguageModelling:
    """The task: see `objectives.Task`."""

    model: Any
    fresh: frozenset[str]
    train: Records[Chunk]
    test: Records[Chunk]
    masker: Masker
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
        """How words are hidden."""
        return {"masking": {"fraction": self.masker.fraction, "whole_word": True, "mask": 0.8, "random": 0.1, "keep": 0.1}}

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Every chunk once, grouped by length, shuffled and hidden anew by the seed."""
        draw = np.random.default_rng([self.seed, 3, epoch])
        for indices in grouped_batches(np.arange(len(self.train)), _lengths(self.train), self.batch_size, draw):
            yield self._batch([self.train[index] for index in indices.tolist()], draw)

    def held_out(self) -> Iterator[Batch]:
        """The held-out chunks, longest first, always with the same words hidden."""
        draw = np.random.default_rng(EVALUATION_SEED)
        for indices in by_length(_lengths(self.test), EVALUATION_BATCH):
            yield self._batch([self.test[index] for index in indices], draw)

    def score(self, batch: Batch) -> Scored:
        """Logits [hidden tokens, vocabulary]: only those, because the output layer costs more than a small encoder."""
        hidden = batch.targets != IGNORED
        with _only(self.model, hidden):
            logits = self.model(**batch.inputs).logits
        return Scored(logits if logits.ndim == 2 else logits[hidden], batch.targets[hidden])

    def tally(self) -> Tally:
        """An empty tally."""
        return Tally()

    def evaluation(self, tally: Tally) -> dict[str, Any]:
        """Loss per hidden token, the share of hidden tokens that are predicted, and perplexity."""
        return {
            "loss": tally.loss,
            "accuracy": tally.accuracy,
            "perplexity": math.exp(min(tally.loss, 700.0)),
            "masked_tokens": tally.count,
        }

    def _batch(self, chunks: Sequence[Chunk], draw: np.random.Generator) -> Batch:
        hidden = [self.masker.hide(chunk, draw) for chunk in chunks]
        return self.collate([ids for ids, _ in hidden], [targets for _, targets in hidden], fill=IGNORED)


def prepare(preparation: Preparation) -> MaskedLanguageModelling:
    """Read, split and cut the texts, and load the model. Raises InvalidRequest for a tokenizer without a mask token."""
    request, checkpoint = preparation.request, preparation.checkpoint
    tokenizer = checkpoint.tokenizer
    if tokenizer.mask_token_id is None:
        raise InvalidRequest(
            "the tokenizer has no mask token",
            field="tokenizer.path" if request.tokenizer else "model.path",
            remedy="Give a model that was pretrained by masking, such as BERT.",
        )
    read = read_rows(preparation.table, request.dataset, labelled=False, work=preparation.work)
    sides = split(read.rows, request.dataset.train_test_split, request.model_train.seed)
    train, test = (_chunks(Selected(read.rows, side), preparation) for side in sides)
    if not train or not test:
        raise InvalidRequest("the texts hold no words to hide", field="dataset.text_column", remedy="Give the column that holds the texts.")
    loaded = load_model(AutoModelForMaskedLM, checkpoint)
    special = set(tokenizer.all_special_ids)
    return MaskedLanguageModelling(
        model=loaded.model,
        fresh=loaded.fresh,
        train=train,
        test=test,
        masker=Masker(
            mask_id=int(tokenizer.mask_token_id), vocabulary=np.asarray([each for each in range(len(tokenizer)) if each not in special])
        ),
        collate=collator(checkpoint.config, tokenizer),
        batch_size=request.model_train.batch_size,
        seed=request.model_train.seed,
        dataset={
            "samples_train": len(sides[0]),
            "samples_test": len(sides[1]),
            "tokens": int(_lengths(train).sum()),
            "dropped_empty": read.dropped_empty,
            "dropped_duplicates": read.dropped_duplicates,
            "chunks_train": len(train),
            "chunks_test": len(test),
            "classes": 0,
        },
    )


def _chunks(rows: Sequence[Row], preparation: Preparation) -> Records[Chunk]:
    chunks = Records(preparation.work, Chunk.to_bytes, Chunk.from_bytes)
    for encoding in encoded(preparation.checkpoint.tokenizer, (row.text for row in rows), preparation.max_length):
        for piece in (encoding, *encoding.overflowing):
            words = tuple(None if special else word for word, special in zip(piece.word_ids, piece.special_tokens_mask, strict=True))
            if any(word is not None for word in words):
                chunks.append(Chunk(tuple(piece.ids), words))
        preparation.tick()
    return chunks


def _lengths(chunks: Records[Chunk]) -> NDArray[np.int64]:
    """Tokens of each chunk: its record holds an id and a word for each."""
    return chunks.sizes // (2 * ID_BYTES)


@contextmanager
def _only(model: Any, places: torch.Tensor) -> Iterator[None]:
    """Within, the head of `model` sees only the hidden states at `places` [rows, tokens]; a head of another name sees all."""
    head = next((getattr(model, name) for name in HEADS if hasattr(model, name)), None)
    if head is None:
        yield
        return

    def pick(module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return (arguments[0][places], *arguments[1:])

    hook = head.register_forward_pre_hook(pick)
    try:
        yield
    finally:
        hook.remove()
