"""How far a training run is, and what it tells whoever waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .memory import in_use

__all__ = ["Meter", "Report"]

INTERVAL = 0.5  # seconds between reports of one phase
# Percent at which each phase starts; training takes nearly all the time.
STARTS = {"prepare": 0.0, "train": 2.0, "evaluate": 2.0, "export": 94.0, "parity": 97.0}
# What goes on where a killed run was: with these the figures of a resumed run are those of one that was never killed.
LASTING = ("step", "tokens", "loss", "learning_rate", "history", "_training_seconds", "_evaluation_seconds")


@dataclass(frozen=True, kw_only=True)
class Report:
    """One moment of a run. `eta` is in seconds, `epoch` counts fractions, `memory` and `estimate` are in bytes.

    `history` is what is known so far.
    """

    phase: str
    percent: float
    eta: float | None
    step: int
    steps: int
    epoch: float
    loss: float | None
    learning_rate: float | None
    tokens_per_second: float | None
    memory: dict[str, int]
    estimate: dict[str, Any] | None
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
    learning_rate: float | None = None
    history: dict[str, Any] = field(default_factory=dict)
    estimate: dict[str, Any] | None = None
    _phase: str = ""
    _last: float = float("-inf")
    _training_seconds: float = 0.0
    _evaluation_seconds: float = 0.0
    _mark: float | None = None
    _started: float = field(init=False)
    _before: float = 0.0  # seconds of earlier attempts at this run
    _here: tuple[int, float] = (0, 0.0)  # steps and seconds that earlier attempts have done

    def __post_init__(self) -> None:
        self._started = self.clock()

    def phase(self, name: str) -> None:
        """Enter a phase and say so."""
        self._account()
        self._phase = name
        self._send(self.clock())

    def count(self, tokens: int, loss: float, learning_rate: float) -> None:
        """One optimizer step of `tokens` tokens is done."""
        self._account()
        self.step, self.tokens, self.loss, self.learning_rate = self.step + 1, self.tokens + tokens, loss, learning_rate

    def tick(self) -> None:
        """Report if the last report is long enough ago. To be called every few tenths of a second of work."""
        self._account()
        now = self.clock()
        if now - self._last >= INTERVAL:
            self._send(now)

    @property
    def elapsed(self) -> float:
        """Seconds of this run, those of attempts that were killed included up to their last checkpoint."""
        return self._before + self.clock() - self._started

    @property
    def tokens_per_second(self) -> float | None:
        """Training tokens per second of training, evaluation not counted."""
        return round(self.tokens / self._training_seconds, 1) if self._training_seconds and self.tokens else None

    @property
    def training_seconds(self) -> float:
        """Seconds spent in optimizer steps so far."""
        return self._training_seconds

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, JSON serialisable."""
        return {"elapsed": self.elapsed, **{name: getattr(self, name) for name in LASTING}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        for name in LASTING:
            setattr(self, name, state[name])
        self._before = state["elapsed"]
        self._here = (self.step, self._training_seconds + self._evaluation_seconds)

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
                learning_rate=self.learning_rate,
                tokens_per_second=self.tokens_per_second,
                memory=in_use(),
                estimate=self.estimate,
                history={name: list(value) for name, value in self.history.items()},
            )
        )

    def _percent(self) -> float:
        if self._phase in ("train", "evaluate") and self.steps:
            return STARTS["train"] + (STARTS["export"] - STARTS["train"]) * self.step / self.steps
        return STARTS.get(self._phase, 0.0)

    def _eta(self) -> float | None:
        """Seconds left of training and evaluation at this process' pace, or at that of the attempts before while it has none.

        Export and parity are seconds and not counted.
        """
        if not self.step:
            return None
        seconds, steps = self._training_seconds + self._evaluation_seconds, self.step
        if self.step > self._here[0]:
            steps, seconds = self.step - self._here[0], seconds - self._here[1]
        return round(seconds / steps * (self.steps - self.step), 1)
