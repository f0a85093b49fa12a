"""Which values the next trial gets, and which trials are not worth going on with: Optuna, behind two questions.

Optuna keeps the study in memory. What lasts are the trials in the task document, from which an attempt that follows a killed
one makes the same study again. The sampler is seeded anew for each trial, from the request's seed and the trial's number,
so that what is asked depends on the trials before and not on how often the search was interrupted.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable
from typing import Any

from ..contracts import ParameterSearch, ParameterSpace
from .searchable import SEARCHABLE, direction_of
from .trials import Trial

__all__ = ["Study"]

STARTUP = 5  # trials that are drawn at random before the sampler learns from them, and that complete before any is pruned
DRAWS = 30  # for values that no trial had: with the same seed and values a training comes to the same


class Study:
    """What is known of the trials. Needs Optuna (the extra `train`)."""

    def __init__(self, search: ParameterSearch, seed: int, past: Iterable[Trial] = ()) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._search, self._seed = optuna, search, seed
        self._spaces = {name: self._distribution(name, space) for name, space in search.parameters.items()}
        pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP) if search.prune else optuna.pruners.NopPruner()
        self._study = optuna.create_study(direction=direction_of(search), pruner=pruner)
        self._asked: dict[int, Any] = {}
        self._seen: set[tuple[Any, ...]] = set()
        for trial in past:
            self._remember(trial)

    def ask(self, number: int) -> dict[str, Any] | None:
        """The values for trial `number`, which no trial had; None when there seem to be no others."""
        for draw in range(DRAWS):
            self._study.sampler = self._sampler(number, draw)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                trial = self._study.ask(self._spaces)
            if self._key(trial.params) not in self._seen:
                self._seen.add(self._key(trial.params))
                self._asked[number] = trial
                return dict(trial.params)
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        return None

    def resume(self, trial: Trial) -> None:
        """Take up a trial that was running when the attempt before ended."""
        self._study.enqueue_trial(dict(trial.parameters))
        self._asked[trial.number] = asked = self._study.ask(self._spaces)
        self._seen.add(self._key(trial.parameters))
        for epoch, value in trial.values.items():
            asked.report(value, epoch)

    def hopeless(self, number: int, epoch: int, value: float) -> bool:
        """Note the `value` of trial `number` at `epoch`; whether it is worse than the median of the others was there."""
        trial = self._asked[number]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a resumed trial may come through an epoch for the second time
            trial.report(value, epoch)
        return bool(trial.should_prune())

    def tell(self, trial: Trial) -> None:
        """Note how `trial` ended."""
        states = self._optuna.trial.TrialState
        state = {"complete": states.COMPLETE, "pruned": states.PRUNED}.get(trial.state, states.FAIL)
        self._study.tell(self._asked.pop(trial.number), trial.value if state == states.COMPLETE else None, state=state)

    def _remember(self, trial: Trial) -> None:
        """Add a trial of an attempt before."""
        states = self._optuna.trial.TrialState
        self._seen.add(self._key(trial.parameters))
        state = {"complete": states.COMPLETE, "pruned": states.PRUNED}.get(trial.state, states.FAIL)
        value = trial.value if state == states.COMPLETE else None
        self._study.add_trial(
            self._optuna.trial.create_trial(
                state=state, value=value, params=dict(trial.parameters), distributions=self._spaces, intermediate_values=dict(trial.values)
            )
        )

    def _sampler(self, number: int, draw: int) -> Any:
        digest = hashlib.sha256(f"{self._seed}/{number}/{draw}".encode()).digest()
        return self._optuna.samplers.TPESampler(seed=int.from_bytes(digest[:4], "big"), n_startup_trials=STARTUP)

    def _distribution(self, name: str, space: ParameterSpace) -> Any:
        kinds = self._optuna.distributions
        if space.choices is not None:
            return kinds.CategoricalDistribution(tuple(space.choices))
        assert space.low is not None, "the contract gives both ends"
        assert space.high is not None, "the contract gives both ends"
        if SEARCHABLE[name] == "integer":
            return kinds.IntDistribution(int(space.low), int(space.high), log=space.log)
        return kinds.FloatDistribution(space.low, space.high, log=space.log)

    def _key(self, parameters: Any) -> tuple[Any, ...]:
        return tuple(parameters[name] for name in self._spaces)
