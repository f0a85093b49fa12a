"""What a run can be trained for: one module per objective, behind one small Protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch

from ..contracts import TrainRequest
from .batches import Batch
from .checkpoints import Checkpoint
from .supported import SUPPORTED, check

__all__ = ["EvaluatedTwice", "Preparation", "Scored", "Tally", "Task", "prepare"]


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What a task is made from; its rows are kept in the folder `work`.

    `tick` is to be called every few tenths of a second of work; it may raise to cancel.
    """

    request: TrainRequest
    checkpoint: Checkpoint
    table: Path
    max_length: int
    tick: Callable[[], None]
    work: Path | None = None


@dataclass(frozen=True)
class Scored:
    """Logits [n, choices] and targets [n] of one batch's n predictions, n at least 1: whatever is learnt is put as a choice."""

    logits: torch.Tensor
    targets: torch.Tensor

    @property
    def loss(self) -> torch.Tensor:
        """Mean cross entropy, in float32; a task that learns by another loss returns a Scored of its own."""
        return torch.nn.functional.cross_entropy(self.logits.float(), self.targets)


@dataclass(kw_only=True)
class Tally:
    """What the predictions over the held-out rows add up to, in memory that does not grow with them.

    `add` is called once for each batch of `Task.held_out`; a task with figures of its own has a Tally of its own.
    """

    total: float = 0.0
    hits: int = 0
    count: int = 0

    def add(self, batch: Batch, scored: Scored) -> None:
        """Count one batch."""
        self.total += float(scored.loss) * len(scored.targets)
        self.hits += int((scored.logits.argmax(-1) == scored.targets).sum())
        self.count += len(scored.targets)

    @property
    def loss(self) -> float:
        """The mean loss."""
        return self.total / max(1, self.count)

    @property
    def accuracy(self) -> float:
        """The share of right predictions."""
        return self.hits / max(1, self.count)


class Task(Protocol):
    """One objective's data and model. `labels` are empty for objectives without; `fresh` names the new parameters."""

    model: Any
    fresh: frozenset[str]
    labels: tuple[str, ...]
    steps_per_epoch: int
    dataset: dict[str, Any]
    notes: dict[str, Any]

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The training batches of `epoch`, `steps_per_epoch` of them; to be asked for in order."""

    def held_out(self) -> Iterator[Batch]:
        """The evaluation batches, the same each time."""

    def score(self, batch: Batch) -> Scored:
        """The model's predictions for `batch`."""

    def tally(self) -> Tally:
        """An empty tally of this objective."""

    def evaluation(self, tally: Any) -> dict[str, Any]:
        """The figures of this objective, JSON serialisable."""


@runtime_checkable
class EvaluatedTwice(Protocol):
    """A task that may be evaluated on rows of another kind as well, when the run has ended."""

    has_second: bool

    def second(self) -> Iterator[Batch]:
        """The batches of that evaluation."""

    def second_evaluation(self, tally: Any) -> dict[str, Any]:
        """Its figures, to be added to those of the first one: JSON serialisable, under a name of their own."""


def prepare(preparation: Preparation) -> Task:
    """The task of the request's objective. Raises InvalidRequest for one that cannot be trained."""
    objective = str(preparation.request.model.objective)
    check(objective)
    module = import_module(f".{SUPPORTED[objective]}", __package__)
    return cast(Task, module.prepare(preparation))
