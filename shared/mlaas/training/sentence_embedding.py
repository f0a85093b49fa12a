"""Fine-tuning an encoder so that the two texts of a pair, e.g. a title and its abstract, have vectors that are near each other.

Contrastive with in-batch negatives (InfoNCE, van den Oord et al. 2018): of all second texts of a batch, each first text has to
pick its own, and each second text its first, by cosine similarity divided by TEMPERATURE. A vector is what the embedder serves:
the mean over the tokens, scaled to length 1. A large batch has more, and so harder, negatives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel

from .batches import Batch, Collator, collator, encoded
from .checkpoints import load_model
from .objectives import Preparation, Scored, Tally
from .pairs import Pair, read_pairs, split_pairs
from .retrieval_scores import retrieval_figures
from .rows import hashed
from .sampling import grouped_batches
from .spool import ID_BYTES, Records, Selected, token_ids

__all__ = ["TEMPERATURE", "prepare"]

TEMPERATURE = 0.05  # as in SimCSE (Gao et al. 2021) and, as a scale of 20, in sentence-transformers
EVALUATION_BATCH = 32
POOL = 10_000  # held-out pairs that are searched at the most: their vectors are kept in memory


@dataclass(frozen=True)
class Encoded:
    """Token ids of both texts, and numbers that are the same for the same text: a text is no negative of itself."""

    first: list[int]
    second: list[int]
    numbers: tuple[int, int]


@dataclass(frozen=True)
class Spooled:
    """Encoded pairs, their token ids on disk; `numbers` are [pairs, 2]."""

    first: Records[list[int]]
    second: Records[list[int]]
    numbers: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.first)

    def of(self, indices: Sequence[int]) -> list[Encoded]:
        """The pairs with these indices."""
        return [Encoded(self.first[index], self.second[index], tuple(self.numbers[index].tolist())) for index in indices]


@dataclass(kw_only=True)
class RetrievalTally(Tally):
    """A tally that keeps the vectors of at most POOL pairs, to search the second texts of all of them for the first ones."""

    kept: int = 0
    first: list[NDArray[np.float32]] = field(default_factory=list)
    second: list[NDArray[np.float32]] = field(default_factory=list)
    numbers: list[tuple[int, int]] = field(default_factory=list)

    def add(self, batch: Batch, scored: Scored) -> None:
        """Count one batch."""
        super().add(batch, scored)
        assert isinstance(scored, Compared)
        if self.kept < POOL:
            self.kept += len(batch.origins)
            self.first.append(scored.first.float().cpu().numpy())
            self.second.append(scored.second.float().cpu().numpy())
            self.numbers += batch.origins


@dataclass(frozen=True)
class Compared(Scored):
    """Similarities [2n, n] and the pairs' vectors [n, dimension]."""

    first: torch.Tensor
    second: torch.Tensor


@dataclass(kw_only=True)
class SentenceEmbedding:
    """The task: see `objectives.Task`."""

    model: Any
    fresh: frozenset[str]
    train: Spooled
    test: Spooled
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
        """How pairs are contrasted."""
        return {"contrastive": {"temperature": TEMPERATURE, "negatives": "in-batch, both ways", "pooling": "mean", "normalize": True}}

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Every pair once, grouped by length, shuffled by the seed."""
        draw = np.random.default_rng([self.seed, 3, epoch])
        lengths = self.train.second.sizes // ID_BYTES
        for indices in grouped_batches(np.arange(len(self.train)), lengths, self.batch_size, draw):
            yield self._batch(self.train.of(indices.tolist()))

    def held_out(self) -> Iterator[Batch]:
        """The held-out pairs, in an order that has nothing to do with their length: alike lengths would make the choice harder."""
        order = np.random.default_rng(0).permutation(len(self.test)).tolist()
        for start in range(0, len(order), EVALUATION_BATCH):
            yield self._batch(self.test.of(order[start : start + EVALUATION_BATCH]))

    def score(self, batch: Batch) -> Compared:
        """Similarities [2n, n]: each first text with all second ones, then each second text with all first ones."""
        first, second = (self._vectors(batch, side) for side in (0, 1))
        similar = first @ second.T / TEMPERATURE
        same = _same(batch.origins).to(similar.device)
        logits = torch.cat([similar.masked_fill(same, -1e4), similar.T.masked_fill(same.T, -1e4)])
        return Compared(logits, batch.targets.repeat(2), first, second)

    def tally(self) -> RetrievalTally:
        """An empty tally."""
        return RetrievalTally()

    def evaluation(self, tally: RetrievalTally) -> dict[str, Any]:
        """Loss and accuracy within batches; recall@k and mean reciprocal rank of the search among the held-out second texts."""
        found = retrieval_figures(np.concatenate(tally.first), np.concatenate(tally.second), [number for _, number in tally.numbers])
        return {"loss": tally.loss, "accuracy": tally.accuracy, **found}

    def _vectors(self, batch: Batch, side: int) -> torch.Tensor:
        """Vectors [n, dimension] of the first or of the second texts; they alternate in a batch, and each side has its own length."""
        mask = batch.inputs["attention_mask"][side::2]
        longest = int(mask.sum(1).max())
        inputs = {name: tensor[side::2, :longest] for name, tensor in batch.inputs.items()}
        states = self.model(**inputs).last_hidden_state.float()
        weights = mask[:, :longest, None].float()
        return torch.nn.functional.normalize((states * weights).sum(1) / weights.sum(1), dim=1)

    def _batch(self, rows: Sequence[Encoded]) -> Batch:
        ids = [ids for one in rows for ids in (one.first, one.second)]
        return self.collate(ids, torch.arange(len(rows)), origins=[one.numbers for one in rows])


def prepare(preparation: Preparation) -> SentenceEmbedding:
    """Read, split and tokenize the pairs, and load the model without a head."""
    request, checkpoint = preparation.request, preparation.checkpoint
    read = read_pairs(preparation.table, request.dataset, labelled=False, work=preparation.work)
    train, test = (
        _encoded(Selected(read.pairs, side), preparation)
        for side in split_pairs(read.pairs, request.dataset.train_test_split, request.model_train.seed)
    )
    loaded = load_model(AutoModel, checkpoint)
    return SentenceEmbedding(
        model=loaded.model,
        fresh=frozenset(),
        train=train,
        test=test,
        collate=collator(checkpoint.config, checkpoint.tokenizer),
        batch_size=request.model_train.batch_size,
        seed=request.model_train.seed,
        dataset={
            "samples_train": len(train),
            "samples_test": len(test),
            "tokens": int(train.first.sizes.sum() + train.second.sizes.sum()) // ID_BYTES,
            "dropped_empty": read.dropped_empty,
            "dropped_duplicates": read.dropped_duplicates,
            "classes": 0,
        },
    )


def _encoded(pairs: Sequence[Pair], preparation: Preparation) -> Spooled:
    first, second = (_ids((texts[side] for texts in map(_texts, pairs)), preparation) for side in (0, 1))
    numbers: dict[bytes, int] = {}
    of = [numbers.setdefault(hashed(text), len(numbers)) for pair in pairs for text in _texts(pair)]
    return Spooled(first, second, np.asarray(of, np.int64).reshape(-1, 2))


def _texts(pair: Pair) -> tuple[str, str]:
    return pair.first, pair.second


def _ids(texts: Iterable[str], preparation: Preparation) -> Records[list[int]]:
    ids = token_ids(preparation.work)
    for encoding in encoded(preparation.checkpoint.tokenizer, texts, preparation.max_length):
        ids.append(list(encoding.ids))
        preparation.tick()
    return ids


def _same(numbers: Sequence[tuple[int, int]]) -> torch.Tensor:
    """[n, n]: which pairs of a batch share a text with another one, whose other text then says nothing against it."""
    first, second = (torch.tensor([each[side] for each in numbers]) for side in (0, 1))
    shared = (first[:, None] == first[None, :]) | (second[:, None] == second[None, :])
    return shared & ~torch.eye(len(numbers), dtype=torch.bool)
