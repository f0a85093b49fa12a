"""How far a training run is, and what it tells whoever waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Meter", "Report"]

INTERVAL = 0.5  # seconds between reports of one phase
# Percent at which each phase starts; training takes nearly all the time.
STARTS = {"prepare": 0.0, "train": 2.0, "evaluate": 2.0, "export": 94.0, "parity": 97.0}


@dataclass(frozen=True, kw_only=True)
class Report:
    """One moment of a run. `eta` is in seconds, `epoch` counts fractions, `history` is what is known so far."""

    phase: str
    percent: float
    eta: float | None
    step: int
    steps: int
    epoch: float
    loss: float | None
    tokens_per_second: float | None
    history: dict[str, Any]


@dataclass(kw_only=True)
class Meter:
    """Turns ticks into reports, at most one each INTERVAL unless the phase changes.

    A report may raise, to cancel the run: the exception passes through every caller.
    """

    report: Callable[[Report], None]
    clock: Callable[[], float] = time.monotonic
    steps: int = 0
    steps_per_epoch: int = 1
    step: int = 0
    tokens: int = 0
    loss: float | None = None
    history: dict[str, Any] = field(default_factory=dict)
    _phase: str = ""
    _last: float = float("-inf")
    _training_seconds: float = 0.0
    _evaluation_seconds: float = 0.0
    _mark: float | None = None

    def phase(self, name: str) -> None:
        """Enter a phase and say so."""
        self._account()
        self._phase = name
        self._send(self.clock())

    def trained(self, tokens: int, loss: float) -> None:
        """One optimizer step of `tokens` tokens is done."""
        self.step, self.tokens, self.loss = self.step + 1, self.tokens + tokens, loss
        self.tick()

    def tick(self) -> None:
        """Report if the last report is long enough ago. To be called every few tenths of a second of work."""
        self._account()
        now = self.clock()
        if now - self._last >= INTERVAL:
            self._send(now)

    @property
    def tokens_per_second(self) -> float | None:
        """Training tokens per second of training, evaluation not counted."""
        return round(self.tokens / self._training_seconds, 1) if self._training_seconds and self.tokens else None

    @property
    def training_seconds(self) -> float:
        """Seconds spent in optimizer steps so far."""
        return self._training_seconds

    def _account(self) -> None:
        now = self.clock()
        if self._mark is not None and self._phase == "train":
            self._training_seconds += now - self._mark
        elif self._mark is not None and self._phase == "evaluate":
            self._evaluation_seconds += now - self._mark
        self._mark = now

    def _send(self, now: float) -> None:
        self._last = now
        self.report(
            Report(
                phase=self._phase,
                percent=round(self._percent(), 1),
                eta=self._eta(),
                step=self.step,
                steps=self.steps,
                epoch=round(self.step / self.steps_per_epoch, 3),
                loss=self.loss,
                tokens_per_second=self.tokens_per_second,
                history={name: list(value) for name, value in self.history.items()},
            )
        )

    def _percent(self) -> float:
        if self._phase in ("train", "evaluate") and self.steps:
            return STARTS["train"] + (STARTS["export"] - STARTS["train"]) * self.step / self.steps
        return STARTS.get(self._phase, 0.0)

    def _eta(self) -> float | None:
        """Seconds left of training and evaluation at the pace so far; export and parity are seconds and not counted."""
        if not self.step:
            return None
        return round((self._training_seconds + self._evaluation_seconds) / self.step * (self.steps - self.step), 1)
