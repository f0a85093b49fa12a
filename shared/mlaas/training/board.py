"""What a search knows of its trials, and what it makes of their figures. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..contracts import TrainRequest
from ..errors import InvalidRequest
from .searchable import direction_of, with_values
from .study import Study
from .trials import ENDED, Trial, best_of, counts

__all__ = ["Board"]

HOPELESS = 5  # trials that fail before any comes to something, after which the others are not tried
TOLD = 10  # trials, those that ended last, that one progress event describes
SEARCHING = 94.0  # percent at which the last trial ends


class Board:
    """The trials of `request.search`, those of attempts before (`past`) included."""

    def __init__(self, request: TrainRequest, past: Iterable[Trial] = ()) -> None:
        assert request.search is not None, "a search was asked for"
        self.request, self.asked = request, request.search
        self.trials = {trial.number: trial for trial in past}
        self.study = Study(self.asked, request.model_train.seed, [one for one in self.trials.values() if one.state in ENDED])
        self.exhausted = False

    @property
    def all(self) -> tuple[Trial, ...]:
        """The trials in their order."""
        return tuple(self.trials[number] for number in sorted(self.trials))

    @property
    def best(self) -> Trial | None:
        """The best trial so far."""
        return best_of(self.trials.values(), direction_of(self.asked))

    @property
    def full(self) -> bool:
        """Whether no further trial is to begin."""
        ended = [one for one in self.trials.values() if one.state in ENDED]
        failing = len(ended) >= HOPELESS and all(one.state == "failed" for one in ended)
        return failing or self.exhausted or len(self.trials) >= self.asked.trials

    def resumed(self) -> list[Trial]:
        """Take up the trials that were running when the attempt before ended."""
        found = [trial for trial in self.all if trial.state == "running"]
        for trial in found:
            self.study.resume(trial)
        return found

    def next(self) -> Trial | None:
        """A new trial; None when all values that there are were tried."""
        number = max(self.trials, default=0) + 1
        parameters = self.study.ask(number)
        if parameters is None:
            self.exhausted = True
            return None
        self.trials[number] = Trial(number=number, parameters=parameters)
        return self.trials[number]

    def evaluated(self, number: int, epoch: int, figures: Mapping[str, Any]) -> Trial | None:
        """Note an epoch's figures; the trial as pruned, if it is not worth going on with: never after its last epoch."""
        value = self._value(figures)
        if value is None:
            return None
        trial = self.trials[number]
        self.trials[number] = trial = replace(trial, values={**trial.values, epoch: round(value, 6)})
        hopeless = self.study.hopeless(number, epoch, value)
        if not hopeless or epoch >= with_values(self.request, trial.parameters).model_train.epochs:
            return None
        return replace(trial, state="pruned")

    def fitted(self, number: int, figures: Mapping[str, Any]) -> Trial:
        """Note a trial's final figures; the trial as complete, or failed where the metric is no number."""
        value = self._value(figures)
        if value is None:
            error = {
                "detail": f"the evaluation has no figure `{self.asked.metric}` that is a number",
                "field": "search.metric",
                "remedy": f"Use one of: {', '.join(sorted(figures))}.",
            }
            return replace(self.trials[number], state="failed", error=error)
        self.trials[number] = replace(self.trials[number], value=value)
        return replace(self.trials[number], state="complete")

    def leads(self, complete: Trial) -> bool:
        """Whether `complete` would be the best."""
        others = [one for one in self.trials.values() if one.number != complete.number]
        return best_of([*others, complete], direction_of(self.asked)) is complete

    def ended(self, trial: Trial) -> None:
        """Note how a trial ended."""
        self.trials[trial.number] = trial
        self.study.tell(trial)

    def progress(self, running: Mapping[int, Mapping[str, Any]], elapsed: float) -> dict[str, Any]:
        """How far the search is: `running` has the last report of each trial that runs, `elapsed` is in seconds."""
        ended = sorted((one for one in self.trials.values() if one.state in ENDED), key=lambda one: one.ended)
        part = sum(report.get("percent", 0.0) / 100 for report in running.values())
        done, best = min(1.0, (len(ended) + part) / self.asked.trials), self.best
        found = {
            "phase": "search",
            "percent": round(SEARCHING * done, 1),
            "eta": round(elapsed / done * (1 - done), 1) if done else None,
            "trials": {**counts(self.trials.values()), "of": self.asked.trials},
            "best": best.summary() if best else None,
            "running": {str(number): dict(report) for number, report in running.items()},
            "ended": [one.summary() for one in ended[-TOLD:]],
        }
        return {name: value for name, value in found.items() if value is not None}

    def reason(self) -> InvalidRequest:
        """Why nothing came of the search: what the first trial that failed says."""
        first = next((one.error for one in self.all if one.error), {})
        return InvalidRequest(
            f"every trial failed; the first: {first.get('detail', 'it was stopped')}",
            field=first.get("field", "search"),
            remedy=first.get("remedy") or "See the job's log for the reason.",
        )

    def _value(self, figures: Mapping[str, Any]) -> float | None:
        value = figures.get(self.asked.metric)
        return float(value) if value is not None and math.isfinite(value) else None
