"""What a trial of a search is, as its task records it. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["ENDED", "State", "Trial", "best_of", "counts"]

State = Literal["running", "complete", "pruned", "failed", "stopped"]
ENDED: tuple[State, ...] = ("complete", "pruned", "failed", "stopped")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training of a search. `number` counts from 1, `parameters` are by the settings' names.

    `value` is the metric of the weights that the training ends with, `values` that of each epoch's evaluation, by epoch from 1.
    `seconds` is how long it took, `ended` the seconds of the search at its end. `error` says why it failed, as a task's does.
    """

    number: int
    parameters: Mapping[str, Any]
    state: State = "running"
    value: float | None = None
    values: Mapping[int, float] = field(default_factory=dict)
    seconds: float = 0.0
    ended: float = 0.0
    error: Mapping[str, Any] | None = None

    def record(self) -> dict[str, Any]:
        """What a task document holds."""
        made = {"number": self.number, "state": self.state, "parameters": dict(self.parameters), "seconds": round(self.seconds, 3)}
        more = {"value": self.value, "error": dict(self.error) if self.error else None}
        values = {str(epoch): value for epoch, value in self.values.items()}  # JSON has only texts as names
        return {**made, "ended": round(self.ended, 3), "values": values, **{name: one for name, one in more.items() if one is not None}}

    def summary(self) -> dict[str, Any]:
        """What a progress event says of it."""
        return {name: value for name, value in self.record().items() if name not in ("values", "ended")}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Trial:
        """The trial that `record` was made of."""
        return cls(**{**record, "values": {int(epoch): value for epoch, value in record.get("values", {}).items()}})


def best_of(trials: Iterable[Trial], direction: str) -> Trial | None:
    """The best complete trial, the first of equals; None without one."""
    complete = [one for one in trials if one.state == "complete" and one.value is not None and math.isfinite(one.value)]
    sign = 1.0 if direction == "minimize" else -1.0
    return min(complete, key=lambda one: (sign * (one.value or 0.0), one.number), default=None)


def counts(trials: Iterable[Trial]) -> dict[str, int]:
    """How many trials there are by state, those states left out that none has."""
    found: dict[str, int] = {}
    for one in trials:
        found[one.state] = found.get(one.state, 0) + 1
    return found
