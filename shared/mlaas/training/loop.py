"""The optimization loop, and the evaluation over the held-out rows."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..contracts import ModelTrain
from ..errors import InvalidRequest
from .objectives import Tally, Task
from .optimization import autocast, optimizer, rate_at
from .progress import Meter

__all__ = ["CLIP", "fit", "measure"]

CLIP = 1.0  # the largest norm of a gradient
POINTS = 40  # of the curve in history["steps"]


def fit(task: Task, settings: ModelTrain, meter: Meter, where: torch.device) -> Tally:
    """Train `task.model` in place; `meter.history` gets figures per epoch and per some steps. Returns the last evaluation.

    Raises InvalidRequest if the loss is no longer a number.
    """
    task.model.to(where)
    steps = settings.epochs * task.steps_per_epoch
    run = _Run(task, settings, meter, where, steps)
    meter.steps, meter.steps_per_epoch = steps, task.steps_per_epoch
    meter.history.update(loss=[], accuracy=[], validation_loss=[], steps=[])
    tally = task.tally()
    for epoch in range(settings.epochs):
        meter.phase("train")
        loss = run.epoch(epoch)
        meter.phase("evaluate")
        tally = measure(task, meter, where)
        meter.history["loss"].append(round(loss, 6))
        meter.history["accuracy"].append(round(tally.accuracy, 6))
        meter.history["validation_loss"].append(round(tally.loss, 6))
    return tally


class _Run:
    def __init__(self, task: Task, settings: ModelTrain, meter: Meter, where: torch.device, steps: int) -> None:
        self.task, self.settings, self.meter, self.where, self.steps = task, settings, meter, where, steps
        self.optimizer = optimizer(task.model, settings.optimizer, task.fresh)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.every = max(1, -(-steps // POINTS))
        self.recent: list[float] = []

    def epoch(self, number: int) -> float:
        """One pass over the training batches; the mean loss of its steps."""
        self.task.model.train()
        losses = []
        for batch in self.task.batches(number):
            losses.append(self.step(batch))
            self.meter.trained(batch.tokens, losses[-1])
            self.note(losses[-1])
        return sum(losses) / len(losses)

    def step(self, batch: Any) -> float:
        """One optimizer step; its loss."""
        factor = rate_at(self.meter.step, self.steps, self.settings.optimizer.num_warm_steps)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        with autocast(self.where):
            scored = self.task.score(batch.to(self.where))
        loss = scored.loss
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.task.model.parameters(), CLIP)
        value = float(loss)
        if not (math.isfinite(value) and math.isfinite(float(norm))):
            raise InvalidRequest(
                f"the loss is no longer a number after {self.meter.step} steps",
                field="model_train.optimizer.init_lr",
                remedy="Lower `init_lr` (5e-5 is usual) or raise `num_warm_steps`; or give another checkpoint, this one may be damaged.",
            )
        self.optimizer.step()
        return value

    def note(self, loss: float) -> None:
        """Add a point to the curve every so many steps: the mean loss since the last one."""
        self.recent.append(loss)
        if self.meter.step % self.every == 0 or self.meter.step == self.steps:
            rate = self.settings.optimizer.init_lr * rate_at(self.meter.step - 1, self.steps, self.settings.optimizer.num_warm_steps)
            self.meter.history["steps"].append(
                {
                    "step": self.meter.step,
                    "loss": round(sum(self.recent) / len(self.recent), 6),
                    "learning_rate": rate,
                    "seconds": round(self.meter.training_seconds, 3),
                }
            )
            self.recent.clear()


def measure(task: Task, meter: Meter, where: torch.device) -> Tally:
    """Predict all held-out batches with `task.model`, and add them up."""
    task.model.eval()
    tally = task.tally()
    with torch.inference_mode():
        for batch in task.held_out():
            there = batch.to(where)
            with autocast(where):
                scored = task.score(there)
            tally.add(there, scored)
            meter.tick()
    return tally
