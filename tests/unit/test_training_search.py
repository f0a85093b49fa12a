"""A search: what may be searched, which trials it runs, what it keeps of them, and how it goes on after a kill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from math import log10
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

pytest.importorskip("optuna")
from mlaas.bundles import open_bundle
from mlaas.contracts import ModelSave, TrainRequest, parse
from mlaas.errors import InvalidRequest, Unavailable
from mlaas.settings import Settings, load
from mlaas.tasks import Cancelled
from mlaas.testing import tiny_models
from mlaas.training.drafts import StoredDrafts
from mlaas.training.kept import BestModel
from mlaas.training.outcome import Outcome
from mlaas.training.search import Notes, Search
from mlaas.training.searchable import SEARCHABLE, check_search, direction_of, with_values
from mlaas.training.trial_process import Heard
from mlaas.training.trials import Trial, best_of

RATE = "model_train.optimizer.init_lr"
BATCH = "model_train.batch_size"
RATES = {RATE: {"low": 1e-5, "high": 1e-2, "log": True}}


def asking(parameters: Any = None, epochs: int = 3, seed: int = 0, **search: Any) -> TrainRequest:
    return parse(
        TrainRequest,
        {
            "model": {"path": "tiny", "objective": "text-classification"},
            "model_train": {"epochs": epochs, "batch_size": 8, "seed": seed},
            "dataset": {"path": "rows.jsonl"},
            "model_save": {"path": "trained"},
            "search": {"parameters": parameters or RATES, **search},
        },
    )


@pytest.mark.parametrize(
    ("parameters", "search", "where", "remedy"),
    [
        ({"model_train.optimizer.init_rl": {"low": 1, "high": 2}}, {}, "search.parameters.model_train.optimizer.init_rl", f"`{RATE}`"),
        ({"init_lr": {"low": 1e-5, "high": 1e-3}}, {}, "search.parameters.init_lr", f"`{RATE}`"),
        ({"model_train.seed": {"low": 1, "high": 2}}, {}, "search.parameters.model_train.seed", "model_train.epochs"),
        ({"model_save.path": {"choices": ["a", "b"]}}, {}, "search.parameters.model_save.path", "model_train.epochs"),
        ({RATE: {"low": 0, "high": 1e-3}}, {}, f"search.parameters.{RATE}.low", RATE),
        ({RATE: {"low": 1e-3, "high": 7}}, {}, f"search.parameters.{RATE}.high", RATE),
        ({BATCH: {"choices": [8, 0]}}, {}, f"search.parameters.{BATCH}.choices.1", BATCH),
        ({BATCH: {"choices": [8, "16"]}}, {}, f"search.parameters.{BATCH}.choices.1", "without quotes"),
        ({BATCH: {"choices": [8, 8]}}, {}, f"search.parameters.{BATCH}.choices", "once"),
        ({BATCH: {"low": 1.5, "high": 8}}, {}, f"search.parameters.{BATCH}", "whole"),
        ({"model_train.precision": {"low": 1, "high": 2}}, {}, "search.parameters.model_train.precision", "choices"),
        ({"model_train.precision": {"choices": ["fp32", "fp8"]}}, {}, "search.parameters.model_train.precision.choices.1", "precision"),
        (RATES, {"metric": "f2"}, "search.metric", "macro_f1"),
        (RATES | {"model_train.epochs": {"choices": [10, 500]}}, {"trials": 100}, "search.trials", "Lower"),
    ],
)
def test_a_search_that_cannot_work_is_refused_with_field_and_remedy(parameters: Any, search: Any, where: str, remedy: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_search(asking(parameters, **search))
    assert refused.value.field == where
    assert remedy in (refused.value.remedy or "")


@pytest.mark.parametrize(
    "space", [{}, {"low": 1}, {"low": 2, "high": 1}, {"low": 1, "high": 2, "choices": [1, 2]}, {"low": 0, "high": 1, "log": True}]
)
def test_a_space_is_a_range_or_choices(space: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        asking({RATE: space})
    assert (refused.value.field or "").startswith(f"search.parameters.{RATE}")


def test_a_model_without_settings_is_not_searched() -> None:
    request = asking().model_copy(update={"model": asking().model.model_copy(update={"path": None, "architecture": "tfidf-linear"})})
    with pytest.raises(InvalidRequest) as refused:
        check_search(request)
    assert refused.value.field == "search"


def test_every_searchable_setting_is_one_of_the_contract_and_reaches_the_trial() -> None:
    for name, kind in SEARCHABLE.items():
        value: Any = "fp32" if kind == "choice" else 16 if kind == "integer" else 0.25
        found: Any = with_values(asking(), {name: value})
        assert found.search is None
        for part in name.split("."):
            found = getattr(found, part)
        assert found == value
    check_search(asking({name: {"choices": ["fp32", "bf16"]} for name, kind in SEARCHABLE.items() if kind == "choice"}))


def test_less_is_better_for_a_loss_and_more_for_other_figures_unless_the_request_says() -> None:
    for given, direction in (({}, "minimize"), ({"metric": "accuracy"}, "maximize"), ({"direction": "maximize"}, "maximize")):
        search = asking(**given).search
        assert search is not None
        assert direction_of(search) == direction


Script = Callable[[Trial, TrainRequest, Path], Iterator[dict[str, Any]]]


@dataclass
class Scripted:
    """A process that plays what a generator yields; where that asks, it waits for the answer and ends if that is no."""

    number: int
    lines: Iterator[dict[str, Any]]
    heard: Queue[Heard]
    status: int = 0
    stopped: bool = False

    def play(self) -> None:
        for message in self.lines:
            self.heard.put((self.number, message))
            if {"evaluated", "fitted"} & message.keys():
                return
        self.heard.put((self.number, None))

    def answer(self, go_on: bool) -> None:
        self.play() if go_on else self.heard.put((self.number, None))

    def stop(self) -> None:
        self.stopped = True

    def end(self, patience: float) -> int:
        return self.status


@dataclass
class Stage:
    """Everything that a search needs beside its request, and what came of it."""

    folder: Path
    settings: Settings
    script: Script
    status: int = 0
    recorded: list[list[dict[str, Any]]] = field(default_factory=list)
    told: list[Mapping[str, Any]] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)
    processes: list[Scripted] = field(default_factory=list)
    most: int = 0
    die_after: int | None = None

    def start(self, trial: Trial, request: TrainRequest, out: Path, heard: Queue[Heard]) -> Scripted:
        process = Scripted(trial.number, self.script(trial, request, out), heard, self.status)
        self.processes.append(process)
        process.play()
        return process

    def record(self, trials: tuple[Trial, ...]) -> None:
        self.recorded.append(json.loads(json.dumps([trial.record() for trial in trials])))
        running = sum(trial.state == "running" for trial in trials)
        self.most = max(self.most, running)
        if self.die_after is not None and len(trials) - running >= self.die_after:
            raise Died

    def run(self, request: TrainRequest, past: tuple[Trial, ...] = ()) -> Outcome:
        work = self.folder / f"work-{len(self.processes)}"
        drafts = StoredDrafts(ModelSave(path="trained"), "some-task", self.settings, work)
        notes = Notes(record=self.record, tell=lambda progress, trials: self.told.append(progress), forget=self.forgotten.append)
        kept = BestModel(drafts, work)
        return Search(request=request, start=self.start, kept=kept, notes=notes, folder=work, past=past, grace=0.0).run()

    @property
    def trials(self) -> list[dict[str, Any]]:
        return self.recorded[-1]

    @property
    def past(self) -> tuple[Trial, ...]:
        return tuple(Trial.of(record) for record in self.trials)


class Died(BaseException):
    """What a test uses in place of a SIGKILL."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.classifier(tmp_path_factory.mktemp("bundles") / "bundle").folder


def loss_of(trial: Trial) -> float:
    """Least at a rate of 1e-3."""
    return abs(log10(trial.parameters[RATE]) + 3)


@pytest.fixture
def stage(tmp_path: Path, bundle: Path) -> Callable[..., Stage]:
    number = count()

    def stage(loss: Callable[[Trial], float] = loss_of, **how: Any) -> Stage:
        def script(trial: Trial, request: TrainRequest, out: Path) -> Iterator[dict[str, Any]]:
            for epoch in range(1, request.model_train.epochs + 1):
                yield {"report": {"percent": 50.0, "step": epoch}}
                yield {"evaluated": {"epoch": epoch, "figures": {"loss": loss(trial) + 1 / epoch}}}
            yield {"fitted": {"loss": loss(trial), "accuracy": 0.5}}
            shutil.copytree(bundle, out)
            yield {
                "done": {
                    "history": {"loss": [loss(trial)]},
                    "evaluation": {"loss": loss(trial)},
                    "dataset": {},
                    "provenance": {},
                    "stopped": None,
                }
            }

        folder = tmp_path / f"stage-{next(number)}"
        return Stage(folder, load({"MLAAS_HOME": str(folder / "home")}), how.pop("script", script), **how)

    return stage


def test_the_best_trial_is_published_with_its_parameters_and_all_trials_are_recorded(stage: Callable[..., Stage]) -> None:
    found = stage()
    outcome = found.run(asking(trials=12, prune=False))
    best = best_of(found.past, "minimize")
    assert best is not None
    assert outcome.evaluation["loss"] == best.value == min(one["value"] for one in found.trials)
    assert outcome.bundle.digest == open_bundle(outcome.bundle.folder).digest
    assert [one["number"] for one in found.trials] == list(range(1, 13))
    assert {one["state"] for one in found.trials} == {"complete"}
    assert all(set(one["values"]) == {"1", "2", "3"} and one["seconds"] >= 0 for one in found.trials)
    assert found.forgotten == list(range(1, 13))
    assert [one["state"] for one in found.recorded[0]] == ["running"], "a trial is recorded when it begins"


def test_only_models_that_are_the_best_so_far_are_exported_and_one_is_kept(stage: Callable[..., Stage]) -> None:
    exported: list[float] = []

    found = stage()
    real = found.script

    def script(trial: Trial, request: TrainRequest, out: Path) -> Iterator[dict[str, Any]]:
        for message in real(trial, request, out):
            if "done" in message:
                exported.append(message["done"]["evaluation"]["loss"])
            yield message

    found.script = script
    found.run(asking(trials=12, prune=False))
    assert exported == sorted(exported, reverse=True)
    assert len(exported) < 12
    assert len(list((found.folder / "work-0").glob("bundle-*"))) == 1


def test_a_search_learns_from_its_trials(stage: Callable[..., Stage]) -> None:
    found = stage()
    found.run(asking(trials=30, prune=False))
    losses = [one["value"] for one in found.trials]
    assert sum(losses[20:]) / 10 < sum(losses[:5]) / 5


def test_trials_that_are_worse_than_the_median_are_pruned_but_never_at_their_last_epoch(stage: Callable[..., Stage]) -> None:
    found = stage()
    found.run(asking(trials=20))
    pruned = [one for one in found.trials if one["state"] == "pruned"]
    assert pruned
    assert all(1 <= len(one["values"]) < 3 and "value" not in one for one in pruned)
    assert all(one["number"] > 5 for one in pruned), "the first trials are what the others are compared with"
    one_epoch = stage()
    one_epoch.run(asking(trials=20, epochs=1))
    assert {one["state"] for one in one_epoch.trials} == {"complete"}


def without_times(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in one.items() if name not in ("seconds", "ended")} for one in trials]


def test_the_same_seed_asks_for_the_same_trials_and_another_for_others(stage: Callable[..., Stage]) -> None:
    first, second, other = stage(), stage(), stage()
    first.run(asking(trials=9))
    second.run(asking(trials=9))
    other.run(asking(trials=9, seed=1))
    assert without_times(first.trials) == without_times(second.trials)
    assert first.trials[0]["parameters"] != other.trials[0]["parameters"]


@pytest.mark.parametrize("after", [1, 4, 8])
def test_a_search_that_died_goes_on_with_the_very_trials_of_one_that_did_not(stage: Callable[..., Stage], after: int) -> None:
    whole, died = stage(), stage(die_after=after)
    expected = whole.run(asking(trials=9))
    with pytest.raises(Died):
        died.run(asking(trials=9))
    before, died.die_after = len(died.processes), None
    outcome = died.run(asking(trials=9), died.past)
    assert without_times(died.trials) == without_times(whole.trials)
    assert outcome.evaluation == expected.evaluation
    assert len(died.processes) - before == 9 - after, "what had ended is not trained again"


def test_the_trial_that_was_running_goes_on_under_its_number(stage: Callable[..., Stage]) -> None:
    found = stage()
    past = Trial(number=1, parameters={RATE: 0.002}, values={1: 0.7})
    found.run(asking(trials=2, prune=False), (past,))
    assert [one["number"] for one in found.trials] == [1, 2]
    assert found.trials[0]["parameters"] == {RATE: 0.002}


def test_the_best_model_is_kept_in_the_storage_and_trained_again_only_if_it_is_lost(stage: Callable[..., Stage]) -> None:
    found = stage()
    first = found.run(asking(trials=3, prune=False))
    shutil.rmtree(found.folder / "work-0")
    again = found.run(asking(trials=3, prune=False), found.past)
    assert len(found.processes) == 3
    assert (again.bundle.digest, again.evaluation) == (first.bundle.digest, first.evaluation)
    shutil.rmtree(found.settings.artefacts / "trained")
    lost = found.run(asking(trials=3, prune=False), found.past)
    assert len(found.processes) == 4
    assert lost.evaluation == first.evaluation


def test_trials_run_at_once_as_many_as_are_asked_for(stage: Callable[..., Stage]) -> None:
    found = stage()
    found.run(asking(trials=10, parallel=3))
    assert found.most == 3
    assert {one["state"] for one in found.trials} <= {"complete", "pruned"}


def failing(when: Callable[[Trial], bool], content: Any) -> Script:
    def script(trial: Trial, request: TrainRequest, out: Path) -> Iterator[dict[str, Any]]:
        if when(trial):
            yield {"failed": content}
            return
        yield {"fitted": {"loss": loss_of(trial)}}
        out.parent.mkdir(parents=True, exist_ok=True)
        tiny_models.classifier(out)
        yield {"done": {"history": {}, "evaluation": {}, "dataset": {}, "provenance": {}, "stopped": None}}

    return script


ERROR = {"detail": "the loss is no longer a number", "field": RATE, "remedy": "Lower it."}


def test_a_trial_that_fails_is_recorded_with_the_reason_and_the_search_goes_on(stage: Callable[..., Stage]) -> None:
    found = stage(script=failing(lambda trial: trial.number == 2, ERROR))
    found.run(asking(trials=3))
    assert [one["state"] for one in found.trials] == ["complete", "failed", "complete"]
    assert found.trials[1]["error"] == ERROR


def test_a_search_of_which_every_trial_fails_fails_with_the_reason_and_without_trying_them_all(stage: Callable[..., Stage]) -> None:
    found = stage(script=failing(lambda trial: True, ERROR))
    with pytest.raises(InvalidRequest) as failed:
        found.run(asking(trials=50))
    assert ERROR["detail"] in failed.value.detail
    assert (failed.value.field, failed.value.remedy) == (ERROR["field"], ERROR["remedy"])
    assert len(found.trials) == 5


def test_a_trial_whose_process_is_killed_has_failed(stage: Callable[..., Stage]) -> None:
    found = stage(script=lambda trial, request, out: iter(()), status=-9)
    with pytest.raises(InvalidRequest) as failed:
        found.run(asking(trials=2))
    assert "signal 9" in failed.value.detail
    assert failed.value.field == "search.parallel"


def test_a_figure_that_is_no_number_fails_the_trial(stage: Callable[..., Stage]) -> None:
    found = stage(loss=lambda trial: float("nan"))
    with pytest.raises(InvalidRequest):
        found.run(asking(trials=2))
    assert [one["error"]["field"] for one in found.trials] == ["search.metric"] * 2


def test_a_storage_that_is_away_ends_the_attempt_and_not_the_trial(stage: Callable[..., Stage]) -> None:
    found = stage(script=lambda trial, request, out: iter([{"unavailable": "the storage is away"}]))
    with pytest.raises(Unavailable):
        found.run(asking(trials=2))
    assert [one["state"] for one in found.trials] == ["running"]


def test_values_are_not_tried_twice_and_a_search_ends_when_there_are_no_others(stage: Callable[..., Stage]) -> None:
    found = stage(loss=lambda trial: float(trial.parameters[BATCH]))
    found.run(asking({BATCH: {"choices": [4, 8, 16]}}, trials=20, prune=False))
    assert sorted(one["parameters"][BATCH] for one in found.trials) == [4, 8, 16]


def test_a_search_whose_time_is_over_ends_with_the_best_until_then(stage: Callable[..., Stage]) -> None:
    def script(trial: Trial, request: TrainRequest, out: Path) -> Iterator[dict[str, Any]]:
        if trial.number > 1:
            yield {"evaluated": {"epoch": 1, "figures": {"loss": 1.0}}}
        yield from failing(lambda trial: False, None)(trial, request, out)

    found = stage(script=script)
    found.run(asking(trials=5, parallel=2, timeout_minutes=1e-9))
    assert [one["state"] for one in found.trials] == ["complete", "stopped"]


def test_a_cancelled_search_ends_its_trials(stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    found = stage()

    def cancel(trials: tuple[Trial, ...]) -> None:
        if len(trials) == 2:
            raise Cancelled("the run was cancelled")

    monkeypatch.setattr(found, "record", cancel)
    with pytest.raises(Cancelled):
        found.run(asking(trials=5, parallel=2))
    assert [process.stopped for process in found.processes] == [True]


def test_progress_says_how_far_the_search_is_and_never_goes_back(stage: Callable[..., Stage]) -> None:
    found = stage()
    found.run(asking(trials=6))
    percents = [one["percent"] for one in found.told]
    assert percents == sorted(percents)
    assert 0 < percents[0] < percents[-1] <= 94.0
    last = found.told[-1]
    assert last["trials"]["of"] == 6
    assert last["best"]["value"] == min(one["value"] for one in last["ended"] if "value" in one)
    assert {one["number"] for one in last["ended"]} == set(range(1, 7))
    assert any(one["running"] for one in found.told)
