"""The optimization loop with its checkpoints, and the evaluation over the held-out rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Literal

import torch

from .. import jobs
from ..contracts import ModelTrain
from .batches import Batch
from .drafts import Drafts
from .judge import Judge
from .keeper import Keeper
from .objectives import Tally, Task
from .optimization import Compute
from .progress import Meter
from .ranks import Ranks
from .snapshot import Tensors, load_weights, trained
from .steps import Stepper, grouped
from .watch import Watch

__all__ = ["Fitted", "fit", "measure", "steps_per_epoch"]

POINTS = 40  # of the curve in history["steps"]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What came of the loop: the evaluation of the weights that are now in the model, and why it ended before its last epoch."""

    tally: Tally
    stopped: Literal["deadline", "early"] | None
    best_step: int | None


@dataclass(kw_only=True)
class Position:
    """Where in the data a run is: `done` optimizer steps of `epoch` are behind it. JSON serialisable."""

    epoch: int = 0
    done: int = 0
    loss: float = 0.0  # the sum over the steps of the epoch
    recent: list[float] = field(default_factory=list)  # losses since the last point of the curve


def fit(
    task: Task,
    settings: ModelTrain,
    meter: Meter,
    compute: Compute,
    drafts: Drafts | None = None,
    watch: Watch | None = None,
    ranks: Ranks | None = None,
) -> Fitted:
    """Train `task.model` in place; `meter.history` gets figures per epoch and per some steps.

    With `drafts` the run goes on where its last checkpoint was, and ends as if it had never been killed. Raises InvalidRequest
    if the loss is no longer a number. `watch` is told each evaluation, and may end the run. With `ranks` this process is
    the first of them, which alone evaluates and keeps checkpoints, and tells the others which step comes next.
    """
    task.model.to(compute.where)
    return _Run(task, settings, meter, compute, drafts, watch, ranks).run()


def steps_per_epoch(task: Task, settings: ModelTrain) -> int:
    """Optimizer steps of an epoch: its batches by as many as are accumulated."""
    return -(-task.steps_per_epoch // settings.gradient_accumulation)


class _Run:
    def __init__(
        self,
        task: Task,
        settings: ModelTrain,
        meter: Meter,
        compute: Compute,
        drafts: Drafts | None,
        watch: Watch | None,
        ranks: Ranks | None,
    ) -> None:
        self.ranks = ranks
        self.task, self.settings, self.meter, self.compute, self.watch = task, settings, meter, compute, watch
        self.per_epoch = steps_per_epoch(task, settings)
        meter.steps, meter.steps_per_epoch = settings.epochs * self.per_epoch, self.per_epoch
        meter.history.update(loss=[], accuracy=[], validation_loss=[], steps=[])
        self.stepper = Stepper(task, settings, compute, meter.steps, ranks)
        self.judge = Judge.of(settings)
        self.position = Position()
        self.best: Tensors | None = None
        self.tally: Tally | None = None  # of the weights to publish, once they are known
        self.keeper = Keeper(drafts, settings.checkpoint_minutes * 60, task.model, self.stepper.optimizer)
        self.every = max(1, -(-meter.steps // POINTS))

    def run(self) -> Fitted:
        self._resume()
        if self.ranks:
            self.ranks.alike(self.task.model, self.stepper.optimizer, self.stepper.state())
        try:
            while not (stopped := self._stopped()) and self.position.epoch < self.settings.epochs:
                self._epoch()
                self._evaluate()
        except jobs.Stopped:
            if self.meter.step:
                self.keeper.hurry(self._state(), self.best, self.judge.step)
            raise
        if self.best is not None:
            load_weights(self.task.model, self.best)
        if self.tally is None:  # resumed after the last evaluation
            self.meter.phase("evaluate")
            self.tally = measure(self.task, self.meter, self.compute)
        return Fitted(tally=self.tally, stopped=stopped, best_step=self.judge.step if self.judge.keeps_best else None)

    def _epoch(self) -> None:
        """What is left of the epoch's training batches."""
        self.meter.phase("train")
        self.task.model.train()
        for batches in self._groups():
            with jobs.uninterrupted():  # so that model, optimizer and position always belong to one step
                if self.ranks:
                    self.ranks.order((self.position.epoch, self.position.done, self.meter.step))
                loss = self.stepper.step(batches, self.meter.step)
                self._count(sum(batch.tokens for batch in batches), loss)
            if self.ranks and self.ranks.stopping:
                raise jobs.Stopped
            self.meter.tick()
            if self._late():
                return
            if self.position.done < self.per_epoch and self.keeper.due():
                self.keeper.save(self._state(), self.best, self.judge.step)

    def _groups(self) -> Iterator[list[Batch]]:
        size = self.settings.gradient_accumulation
        return islice(grouped(self.task.batches(self.position.epoch), size), self.position.done, None)

    def _count(self, tokens: int, loss: float) -> None:
        """Note a step, and every so many steps a point of the curve: the mean loss since the last one."""
        rate, position = self.stepper.rate(self.meter.step), self.position
        self.meter.count(tokens, loss, rate)
        position.done, position.loss = position.done + 1, position.loss + loss
        position.recent.append(loss)
        if self.meter.step % self.every == 0 or self.meter.step == self.meter.steps:
            point = {"step": self.meter.step, "loss": round(sum(position.recent) / len(position.recent), 6), "learning_rate": rate}
            self.meter.history["steps"].append({**point, "seconds": round(self.meter.training_seconds, 3)})
            position.recent.clear()

    def _evaluate(self) -> None:
        """Evaluate the weights as they are; note, judge and keep them."""
        self.meter.phase("evaluate")
        tally = measure(self.task, self.meter, self.compute)
        history = self.meter.history
        history["loss"].append(round(self.position.loss / self.position.done, 6))
        history["accuracy"].append(round(tally.accuracy, 6))
        history["validation_loss"].append(round(tally.loss, 6))
        figures = self.task.evaluation(tally) if self.judge.active or self.watch else {}
        best = self.judge.active and self.judge.judge(figures, self.meter.step)
        if self.watch:
            self.watch.evaluated(self.position.epoch + 1, figures)
        if best or not self.judge.keeps_best:
            self.tally = tally
        if best and self.judge.keeps_best:
            self.best = {name: tensor.clone().cpu() for name, tensor in trained(self.task.model).items()}
        self.position = Position(epoch=self.position.epoch + 1, recent=self.position.recent)
        if self.keeper.worthwhile():
            self.keeper.save(self._state(), self.best, self.judge.step)

    def _stopped(self) -> Literal["deadline", "early"] | None:
        if self.judge.exhausted:
            return "early"
        # An epoch that was begun takes one more step and is evaluated, so that the history says what is published.
        return "deadline" if self._late() and self.meter.step and not self.position.done else None

    def _late(self) -> bool:
        return self.settings.deadline_minutes is not None and self.meter.elapsed >= self.settings.deadline_minutes * 60

    def _state(self) -> dict[str, Any]:
        return {
            "position": asdict(self.position),
            "meter": self.meter.state(),
            "judge": self.judge.state(),
            "stepper": self.stepper.state(),
        }

    def _resume(self) -> None:
        found = self.keeper.resume()
        if found is None:
            return
        state, self.best = found
        self.position = Position(**state["position"])
        self.meter.restore(state["meter"])
        self.judge.restore(state["judge"])
        self.stepper.restore(state["stepper"])
        for epoch in range(self.position.epoch):  # epochs draw from what the ones before have left
            next(iter(self.task.batches(epoch)), None)


def measure(task: Task, meter: Meter, compute: Compute, batches: Iterable[Batch] | None = None) -> Tally:
    """Predict `batches`, all held-out ones by default, with `task.model`, and add them up."""
    task.model.eval()
    tally = task.tally()
    with torch.inference_mode():
        for batch in task.held_out() if batches is None else batches:
            there = batch.to(compute.where)
            with compute.autocast():
                scored = task.score(there)
            tally.add(there, scored)
            meter.tick()
    return tally
