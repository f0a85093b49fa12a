"""Which evaluation was the best so far, and whether it is worth going on. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..contracts import EarlyStopping, ModelTrain
from ..errors import InvalidRequest

__all__ = ["Judge"]

LOWER_IS_BETTER = frozenset({"loss", "perplexity"})


@dataclass(kw_only=True)
class Judge:
    """Judges the figures of each evaluation. `step` is that of the best one."""

    early_stopping: EarlyStopping | None = None
    keeps_best: bool = False
    best: float | None = None
    step: int | None = None
    _target: float | None = None  # what the next improvement must beat, by min_delta
    _waited: int = 0

    @classmethod
    def of(cls, settings: ModelTrain) -> Judge:
        """The judge that the request asks for."""
        keep = settings.keep or ("best" if settings.early_stopping else "last")
        return cls(early_stopping=settings.early_stopping, keeps_best=keep == "best")

    @property
    def active(self) -> bool:
        """Whether anything depends on the figures."""
        return self.keeps_best or self.early_stopping is not None

    @property
    def metric(self) -> str:
        """The figure that counts."""
        return self.early_stopping.metric if self.early_stopping else "loss"

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return self.early_stopping is not None and self._waited >= self.early_stopping.patience

    def judge(self, figures: Mapping[str, Any], step: int) -> bool:
        """Whether `figures` are the best so far. Raises InvalidRequest if the metric is not among them."""
        value = self._value(figures)
        improvement = self.early_stopping.min_delta if self.early_stopping else 0.0
        if self._target is None or self._gain(value, self._target) > improvement:
            self._target, self._waited = value, 0
        else:
            self._waited += 1
        if self.best is not None and not self._gain(value, self.best) > 0:
            return False
        self.best, self.step = value, step
        return True

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, JSON serialisable."""
        return {"best": self.best, "step": self.step, "target": self._target, "waited": self._waited}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.best, self.step, self._target, self._waited = state["best"], state["step"], state["target"], state["waited"]

    def _gain(self, value: float, reference: float) -> float:
        return reference - value if self.metric in LOWER_IS_BETTER else value - reference

    def _value(self, figures: Mapping[str, Any]) -> float:
        numbers = {name: float(value) for name, value in figures.items() if isinstance(value, int | float)}
        if self.metric not in numbers or not math.isfinite(numbers[self.metric]):
            raise InvalidRequest(
                f"the evaluation has no figure `{self.metric}`",
                field="model_train.early_stopping.metric",
                remedy=f"Use one of: {', '.join(sorted(numbers))}.",
            )
        return numbers[self.metric]
