"""One optimizer step over one batch or several: schedule, precision, accumulation, clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch

from ..contracts import ModelTrain
from ..errors import InvalidRequest
from .batches import Batch
from .objectives import Task
from .optimization import Compute, optimizer, rate_at
from .ranks import Ranks

__all__ = ["CLIP", "Stepper", "grouped"]

CLIP = 1.0  # the largest norm of a gradient
SMALLEST_SCALE = 1.0  # of the loss in fp16: gradients that overflow even so are those of a run that diverges


class Stepper:
    """Steps of one run. `steps` is how many the schedule is made for. With `ranks` each of them takes its share of every batch."""

    def __init__(self, task: Task, settings: ModelTrain, compute: Compute, steps: int, ranks: Ranks | None = None) -> None:
        self.ranks = ranks
        self.task, self.settings, self.compute, self.steps = task, settings.optimizer, compute, steps
        self.optimizer = optimizer(task.model, settings.optimizer, task.fresh)
        self.scaler = torch.amp.GradScaler(compute.where.type, enabled=compute.dtype == torch.float16)
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        self._parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def step(self, batches: Sequence[Batch], number: int) -> float:
        """Step `number`, from 0, over all `batches` as if they were one; their mean loss. Raises InvalidRequest if it is no number."""
        factor = rate_at(number, self.steps, self.settings.num_warm_steps)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._gradients(batches)
        self.scaler.unscale_(self.optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, CLIP))
        if not math.isfinite(loss) or not (math.isfinite(norm) or self._may_overflow()):
            raise InvalidRequest(
                f"the loss is no longer a number after {number} steps",
                field="model_train.optimizer.init_lr",
                remedy="Lower `init_lr` (5e-5 is usual) or raise `num_warm_steps`; or give another checkpoint, this one may be damaged.",
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss

    def rate(self, number: int) -> float:
        """The learning rate of step `number`, of what is not new."""
        return self.settings.init_lr * rate_at(number, self.steps, self.settings.num_warm_steps)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the optimizer, JSON serialisable."""
        return {"scaler": self.scaler.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.scaler.load_state_dict(state["scaler"])

    def _gradients(self, batches: Sequence[Batch]) -> float:
        """Accumulate; every target weighs the same, however the targets are spread over the batches."""
        total, count, first = 0.0, 0, 0
        for batch in self._own(batches):
            with self.compute.autocast():
                scored = self.task.score(batch.to(self.compute.where))
            loss, targets = scored.loss, len(scored.targets)
            first = first or targets
            self.scaler.scale(loss if targets == first else loss * (targets / first)).backward()  # type: ignore[no-untyped-call]
            total, count = total + float(loss.detach()) * targets, count + targets
        if self.ranks:
            return self.ranks.combine(self._parameters, first, total, count)
        if count != first:
            for parameter in self._parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(first / count)
        return total / count if len(batches) > 1 else float(loss.detach())

    def _own(self, batches: Sequence[Batch]) -> Iterator[Batch]:
        """What this process computes of `batches`: all rows, or its share where that has any."""
        for batch in batches:
            mine = self.ranks.share(batch) if self.ranks else batch
            if len(mine.targets):
                yield mine

    def _may_overflow(self) -> bool:
        """Whether the scaler will leave this step out and go on with a smaller scale."""
        return self.scaler.is_enabled() and float(self.scaler.get_scale()) > SMALLEST_SCALE


def grouped(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """`batches` in lists of `size`; the last list may be shorter."""
    source = iter(batches)
    while group := list(islice(source, size)):
        yield group
