"""Fine-tuning an encoder to put a text into one of the data set's classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from ..contracts import TrainRequest
from .batches import Batch, Collator, by_length, collator
from .checkpoints import load_model
from .confusion import ConfusionTally
from .labelled import Labelled, encoder, labelled
from .misspelling import Misspeller, describe, misspelt
from .objectives import Preparation, Scored
from .rows import Row, check_labels, read_rows
from .sampling import ClassSampler, grouped_batches
from .scores import classification_figures
from .splits import split
from .spool import Selected
from .weights import class_weights

__all__ = ["TEMPER", "prepare"]

TEMPER = 0.5  # see sampling.quotas
UNNAMED = "[NoSite]"  # the label of a text that names no structure: accuracy is also given without it
EVALUATION_BATCH = 64


@dataclass(frozen=True)
class Weighed(Scored):
    """Predictions of which each counts by the weight of its class; `weights` is [classes], 1 in the mean over the training rows."""

    weights: torch.Tensor

    @property
    def loss(self) -> torch.Tensor:
        """The mean over the rows, not over their weights, so that accumulated batches make the step of one batch."""
        each = torch.nn.functional.cross_entropy(self.logits.float(), self.targets, reduction="none")
        return (each * self.weights[self.targets]).mean()


@dataclass(kw_only=True)
class Classification:
    """The task: see `objectives.Task`."""

    model: Any
    fresh: frozenset[str]
    labels: tuple[str, ...]
    train: Labelled
    test: Labelled
    collate: Collator
    batch_size: int
    seed: int
    dropped: dict[str, int]
    weights: tuple[float, ...] | None = None  # of each class in the loss; every row is then drawn once an epoch
    misspeller: Misspeller | None = None
    wrong: Labelled | None = None  # the held-out rows with typing errors
    describe: Callable[[dict[str, Any]], dict[str, Any]] = lambda figures: figures
    sampler: ClassSampler = field(init=False)

    def __post_init__(self) -> None:
        self.sampler = ClassSampler(self.train.classes, self.temper, self.seed)

    @property
    def temper(self) -> float:
        """How classes are drawn: see sampling.quotas."""
        return TEMPER if self.weights is None else 1.0

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        return -(-len(self.sampler) // self.batch_size)

    @property
    def dataset(self) -> dict[str, Any]:
        """Counts of rows, of tokens in the training rows, and of what was dropped."""
        return {
            "samples_train": len(self.train.ids),
            "samples_test": len(self.test.ids),
            "tokens": int(self.train.lengths.sum()),
            **self.dropped,
            "classes": len(self.labels),
        }

    @property
    def notes(self) -> dict[str, Any]:
        """How the classes were balanced: rows each has and rows each gives to an epoch, and weights where there are any."""
        counts = zip(self.sampler.counts, self.sampler.quotas, strict=False)
        weighed = {} if self.weights is None else {"class_weights": dict(zip(self.labels, self.weights, strict=True))}
        return {
            **weighed,
            "sampling": {
                "temper": self.temper,
                "rows_per_epoch": {label: {"has": has, "gives": gives} for label, (has, gives) in zip(self.labels, counts, strict=False)},
            },
        }

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Tempered by class, grouped by length, shuffled by the seed."""
        draw = np.random.default_rng([self.seed, 3, epoch])
        grouped = [each.tolist() for each in grouped_batches(self.sampler.epoch(), self.train.lengths, self.batch_size, draw)]
        if self.misspeller is None:
            yield from (self._batch(self.train, indices) for indices in grouped)
            return
        for indices, ids in zip(grouped, self.misspeller.batches(epoch, grouped), strict=True):
            yield self.collate(ids, self._targets(self.train, indices))

    def held_out(self) -> Iterator[Batch]:
        """The held-out rows, longest first."""
        yield from self._in_order(self.test)

    @property
    def has_second(self) -> bool:
        """Whether the held-out rows are to be looked at with typing errors as well."""
        return self.wrong is not None

    def second(self) -> Iterator[Batch]:
        """The misspelt held-out rows, longest first."""
        assert self.wrong is not None
        yield from self._in_order(self.wrong)

    def second_evaluation(self, tally: ConfusionTally) -> dict[str, Any]:
        """The figures of the misspelt rows, without their confusion matrix."""
        return self.describe(self.evaluation(tally))

    def score(self, batch: Batch) -> Scored:
        """Logits [rows, classes]. Only what is learnt from is weighed: losses of evaluations stay comparable."""
        logits = self.model(**batch.inputs).logits
        if self.weights is None or not getattr(self.model, "training", False):
            return Scored(logits, batch.targets)
        return Weighed(logits, batch.targets, torch.tensor(self.weights, device=logits.device))

    def tally(self) -> ConfusionTally:
        """An empty confusion matrix."""
        return ConfusionTally(labels=self.labels)

    def evaluation(self, tally: ConfusionTally) -> dict[str, Any]:
        """Loss, accuracy, macro F1, figures per class and the confusion matrix."""
        return {"loss": tally.loss, **classification_figures(tally.matrix, self.labels, unnamed=UNNAMED)}

    def _in_order(self, rows: Labelled) -> Iterator[Batch]:
        for indices in by_length(rows.lengths, EVALUATION_BATCH):
            yield self._batch(rows, indices)

    def _batch(self, rows: Labelled, indices: list[int]) -> Batch:
        return self.collate([rows.ids[index] for index in indices], self._targets(rows, indices))

    def _targets(self, rows: Labelled, indices: list[int]) -> torch.Tensor:
        return torch.from_numpy(rows.classes[indices])


def prepare(preparation: Preparation) -> Classification:
    """Read, split and tokenize the rows, and load the model with a new head. Raises InvalidRequest for fewer than two labels."""
    request, checkpoint = preparation.request, preparation.checkpoint
    read = read_rows(preparation.table, request.dataset, labelled=True, work=preparation.work)
    labels = check_labels(read.rows)
    train, test = split(read.rows, request.dataset.train_test_split, request.model_train.seed)
    fitted, held_out = (Selected(read.rows, side) for side in (train, test))
    trained, wrong = labelled(fitted, labels, preparation), misspelt(held_out, request)

    loaded = load_model(
        AutoModelForSequenceClassification,
        checkpoint,
        num_labels=len(labels),
        problem_type="single_label_classification",  # the checkpoint may say otherwise of the head it had
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    return Classification(
        model=loaded.model,
        fresh=loaded.fresh,
        labels=labels,
        train=trained,
        test=labelled(held_out, labels, preparation),
        weights=_weights(trained, labels, request),
        misspeller=_misspeller(fitted, trained, preparation),
        wrong=labelled(wrong, labels, preparation) if wrong else None,
        describe=lambda figures: describe(figures, request, held_out, wrong),
        collate=collator(checkpoint.config, checkpoint.tokenizer),
        batch_size=request.model_train.batch_size,
        seed=request.model_train.seed,
        dropped={
            "dropped_empty": read.dropped_empty,
            "dropped_unlabelled": read.dropped_unlabelled,
            "dropped_duplicates": read.dropped_duplicates,
        },
    )


def _weights(trained: Labelled, labels: tuple[str, ...], request: TrainRequest) -> tuple[float, ...] | None:
    asked = request.dataset.class_weights
    return None if asked is None else class_weights(asked, labels, np.bincount(trained.classes, minlength=len(labels)).tolist())


def _misspeller(rows: Sequence[Row], trained: Labelled, preparation: Preparation) -> Misspeller | None:
    augment, seed = preparation.request.dataset.augment, preparation.request.model_train.seed
    if augment is None:
        return None
    return Misspeller(typos=augment.typos, seed=seed, rows=rows, ids=trained.ids, encode=encoder(preparation))
