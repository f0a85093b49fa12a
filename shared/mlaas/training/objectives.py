"""What a run can be trained for: one module per objective, behind one small Protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import torch

from ..contracts import TrainRequest
from .batches import Batch
from .checkpoints import Checkpoint
from .supported import SUPPORTED, check

__all__ = ["Preparation", "Scored", "Tally", "Task", "prepare"]


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What a task is made from. `tick` is to be called every few tenths of a second of work; it may raise to cancel."""

    request: TrainRequest
    checkpoint: Checkpoint
    table: Path
    max_length: int
    tick: Callable[[], None]


@dataclass(frozen=True)
class Scored:
    """Logits [n, classes] and targets [n] of one batch's predictions."""

    logits: torch.Tensor
    targets: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Predictions over the held-out rows: mean loss, and the predicted and true class of each, in the order of `Task.held_out`."""

    loss: float
    predicted: list[int]
    actual: list[int]

    @property
    def accuracy(self) -> float:
        """The share of right predictions."""
        return sum(left == right for left, right in zip(self.predicted, self.actual, strict=True)) / max(1, len(self.actual))


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

    def evaluation(self, tally: Tally) -> dict[str, Any]:
        """The figures of this objective, JSON serialisable."""


def prepare(preparation: Preparation) -> Task:
    """The task of the request's objective. Raises InvalidRequest for one that cannot be trained."""
    objective = str(preparation.request.model.objective)
    check(objective)
    module = import_module(f".{SUPPORTED[objective]}", __package__)
    return cast(Task, module.prepare(preparation))
