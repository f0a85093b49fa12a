"""A run that dies goes on from its last checkpoint and ends as one that never died."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
import onnx
import torch
from transformers import BertForMaskedLM

from mlaas import jobs, storage
from mlaas.contracts import ModelSave, TrainRequest, parse
from mlaas.errors import Unavailable
from mlaas.settings import Settings, load
from mlaas.testing.tiny_checkpoints import write_checkpoint, write_rows
from mlaas.training import progress
from mlaas.training.drafts import Drafts, StoredDrafts
from mlaas.training.progress import Report
from mlaas.training.run import Outcome, Sources, train

pytestmark = pytest.mark.training


@pytest.fixture(autouse=True)
def _one_thread_and_a_report_at_each_step(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sources]:
    folder = tmp_path_factory.mktemp("sources")
    table = write_rows(folder / "rows.jsonl")
    encoder, language_model = write_checkpoint(folder / "encoder"), write_checkpoint(folder / "lm", BertForMaskedLM)
    return {
        "text-classification": Sources(checkpoint=encoder, tokenizer=None, table=table),
        "masked-lm": Sources(checkpoint=language_model, tokenizer=None, table=table),
    }


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load({"MLAAS_HOME": str(tmp_path / "home")})


class Died(BaseException):
    """What a test uses in place of a SIGKILL."""


@dataclass
class Everything(Drafts):
    """Every step is due for a checkpoint; dies at a save, before or after it."""

    real: StoredDrafts
    die_at: int | None = None
    grace: float = 5.0
    saves: int = 0
    written: list[str] = field(default_factory=list)

    def save(self, write: Callable[[Path], None], kept: frozenset[str] = frozenset()) -> None:
        def noted(folder: Path) -> None:
            write(folder)
            self.written += [file.name for file in folder.iterdir()]

        self.saves += 1
        self.real.save(noted, kept)
        if self.saves == self.die_at:
            raise Died

    def load(self) -> Mapping[str, Path] | None:
        return self.real.load()

    def clear(self) -> None:
        self.real.clear()

    def of(self, fingerprint: str) -> Drafts:
        self.real.of(fingerprint)
        return self


def asking(objective: str = "text-classification", augment: Any = None, variants: Any = None, **model_train: Any) -> TrainRequest:
    return parse(
        TrainRequest,
        {
            "model": {"path": "tiny", "objective": objective},
            "model_train": {"epochs": 3, "batch_size": 8, "optimizer": {"init_lr": 3e-3}, "checkpoint_minutes": 1e-9, **model_train},
            "dataset": {"path": "rows.jsonl", "train_test_split": 0.2, "augment": augment},
            "model_save": {"path": "trained", "variants": variants},
        },
    )


def place(settings: Settings, folder: Path) -> StoredDrafts:
    return StoredDrafts(ModelSave(path="trained"), "some-task", settings, folder)


def weights(outcome: Outcome) -> dict[str, bytes]:
    return {tensor.name: tensor.raw_data for tensor in onnx.load(outcome.bundle.graph).graph.initializer}


def curve(outcome: Outcome) -> list[dict[str, Any]]:
    return [{name: value for name, value in point.items() if name != "seconds"} for point in outcome.history["steps"]]


def quietly(report: Report) -> None: ...


@pytest.mark.parametrize(
    ("objective", "die_at", "how"),
    [
        ("text-classification", 5, {}),  # in the first epoch
        ("text-classification", 12, {"variants": ["int8"]}),  # after the first epoch's evaluation
        ("text-classification", 17, {"gradient_accumulation": 2, "epochs": 5}),
        ("text-classification", 20, {"keep": "best"}),
        ("text-classification", 9, {"lora": {"rank": 2, "dropout": 0.1}}),
        ("text-classification", 17, {"augment": {"typos": {"probability": 0.4}}}),
        ("text-classification", 36, {"variants": ["int8"]}),  # after the last evaluation
        ("masked-lm", 18, {}),
    ],
)
def test_a_run_that_died_ends_with_the_weights_and_the_history_of_one_that_did_not(
    objective: str, die_at: int, how: dict[str, Any], sources: dict[str, Sources], settings: Settings, tmp_path: Path
) -> None:
    request = asking(objective, **how)
    whole = train(request, sources[objective], tmp_path / "whole", quietly)
    drafts = Everything(place(settings, tmp_path / "work"), die_at)
    with pytest.raises(Died):
        train(request, sources[objective], tmp_path / "bundle", quietly, drafts.of)
    reports: list[Report] = []
    resumed = train(request, sources[objective], tmp_path / "bundle", reports.append, place(settings, tmp_path / "work").of)
    assert weights(resumed) == weights(whole)
    assert resumed.bundle.digest == whole.bundle.digest, "also of a variant, which was calibrated on the same rows"
    assert curve(resumed) == curve(whole)
    for name in ("loss", "accuracy", "validation_loss"):
        assert resumed.history[name] == whole.history[name]
    assert resumed.evaluation == whole.evaluation
    assert resumed.dataset["tokens_trained"] == whole.dataset["tokens_trained"]
    first = next(report for report in reports if report.phase in ("train", "evaluate"))
    assert first.step >= die_at - 3, "what was trained already is not trained again"


def first_step(request: TrainRequest, source: Sources, drafts: Drafts, tmp_path: Path) -> int:
    """The step at which a run with these drafts begins."""
    found: list[int] = []

    def look(report: Report) -> None:
        if report.phase == "train":
            found.append(report.step)
            raise Died

    with pytest.raises(Died):
        train(request, source, tmp_path / "bundle", look, drafts.of)
    return found[0]


@pytest.fixture
def died(sources: dict[str, Sources], settings: Settings, tmp_path: Path) -> Callable[..., list[str]]:
    """Leaves a checkpoint of a run that died; the names of its files."""

    def die(at: int = 5, **how: Any) -> list[str]:
        drafts = Everything(place(settings, tmp_path / "work"), die_at=at)
        with pytest.raises(Died):
            train(asking(**how), sources["text-classification"], tmp_path / "bundle", quietly, drafts.of)
        return storage.names("trained/.draft-some-task", "local", settings=settings)

    return die


def test_only_the_last_checkpoint_is_kept_and_nothing_when_the_drafts_are_cleared(
    died: Callable[..., list[str]], settings: Settings, tmp_path: Path
) -> None:
    assert [name.partition("-")[2] or name for name in sorted(died(), key=lambda name: name.partition("-")[2])] == [
        "manifest.json",
        "optimizer.safetensors",
        "state.json",
        "weights.safetensors",
    ]
    place(settings, tmp_path).clear()
    assert not (settings.artefacts / "trained" / ".draft-some-task").exists()


def test_nothing_in_a_checkpoint_is_pickled(died: Callable[..., list[str]], settings: Settings) -> None:
    from safetensors.torch import load_file

    for name in died():
        file = settings.artefacts / "trained" / ".draft-some-task" / name
        load_file(file) if name.endswith(".safetensors") else json.loads(file.read_text())


def test_the_best_weights_are_written_once_and_kept_beside_later_checkpoints(
    sources: dict[str, Sources], settings: Settings, tmp_path: Path
) -> None:
    drafts = Everything(place(settings, tmp_path / "work"))
    train(asking(keep="best", epochs=3), sources["text-classification"], tmp_path / "bundle", quietly, drafts.of)
    best = [name for name in drafts.written if name.startswith("best-")]
    assert best
    assert len(best) == len(set(best))
    assert sum("best-" in name for name in storage.names("trained/.draft-some-task", "local", settings=settings)) == 1


@pytest.mark.parametrize("change", ["seed", "data", "model"])
def test_a_checkpoint_of_another_request_model_or_data_set_is_ignored_with_a_line_in_the_log(
    change: str,
    died: Callable[..., list[str]],
    sources: dict[str, Sources],
    settings: Settings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    died()
    source = sources["text-classification"]
    if change == "data":
        table = tmp_path / "rows.jsonl"
        table.write_text(source.table.read_text() + '{"text": "the new robin", "label": "bird"}\n')
        source = Sources(checkpoint=source.checkpoint, tokenizer=None, table=table)
    if change == "model":
        source = Sources(checkpoint=sources["masked-lm"].checkpoint, tokenizer=None, table=source.table)
    request = asking(seed=7 if change == "seed" else 0)
    assert first_step(request, source, place(settings, tmp_path / "work"), tmp_path) == 0
    assert "checkpoint.ignored" in caplog.text


def test_a_later_deadline_or_another_interval_does_not_cost_the_checkpoint(
    died: Callable[..., list[str]], sources: dict[str, Sources], settings: Settings, tmp_path: Path
) -> None:
    died()
    request = asking(checkpoint_minutes=5, deadline_minutes=500)
    assert first_step(request, sources["text-classification"], place(settings, tmp_path / "work"), tmp_path) == 5


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("harm", ["missing", "changed"])
def test_a_damaged_checkpoint_is_ignored(
    file: str, harm: str, died: Callable[..., list[str]], sources: dict[str, Sources], settings: Settings, tmp_path: Path
) -> None:
    name = next(name for name in died() if name.endswith(file))
    target = settings.artefacts / "trained" / ".draft-some-task" / name
    if harm == "missing":
        target.unlink()
    else:
        content = bytearray(target.read_bytes())
        content[len(content) // 2] ^= 0xFF
        target.write_bytes(content)
    assert first_step(asking(), sources["text-classification"], place(settings, tmp_path / "work"), tmp_path) == 0


def test_files_of_a_save_that_was_killed_are_removed_at_the_next_start(
    died: Callable[..., list[str]], settings: Settings, sources: dict[str, Sources], tmp_path: Path
) -> None:
    died()
    litter = settings.artefacts / "trained" / ".draft-some-task" / "0123456789ab-weights.safetensors"
    litter.write_bytes(b"half")
    assert first_step(asking(), sources["text-classification"], place(settings, tmp_path / "work"), tmp_path) == 5
    assert not litter.exists()


def test_a_storage_that_is_away_costs_a_checkpoint_and_not_the_run(
    sources: dict[str, Sources], settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Away(Everything):
        def save(self, write: Callable[[Path], None], kept: frozenset[str] = frozenset()) -> None:
            raise Unavailable("the storage is away")

    drafts = Away(place(settings, tmp_path / "work"))
    train(asking(epochs=1), sources["text-classification"], tmp_path / "bundle", quietly, drafts.of)
    assert "checkpoint.missed" in caplog.text


def test_a_run_that_is_told_to_stop_writes_a_checkpoint_first(sources: dict[str, Sources], settings: Settings, tmp_path: Path) -> None:
    def stop(report: Report) -> None:
        if report.step == 7:
            raise jobs.Stopped

    request = asking(checkpoint_minutes=60)
    drafts = place(settings, tmp_path / "work")
    with pytest.raises(jobs.Stopped):
        train(request, sources["text-classification"], tmp_path / "bundle", stop, drafts.of)
    assert first_step(request, sources["text-classification"], place(settings, tmp_path / "work"), tmp_path) == 7


def test_a_checkpoint_that_takes_longer_than_the_grace_is_given_up(
    sources: dict[str, Sources], settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()

    class Slow(Everything):
        def save(self, write: Callable[[Path], None], kept: frozenset[str] = frozenset()) -> None:
            release.wait(30)

    def stop(report: Report) -> None:
        if report.step == 2:
            raise jobs.Stopped

    started = time.monotonic()
    drafts = Slow(place(settings, tmp_path / "work"), grace=0.2)
    with pytest.raises(jobs.Stopped):
        train(asking(checkpoint_minutes=60), sources["text-classification"], tmp_path / "bundle", stop, drafts.of)
    release.set()
    assert time.monotonic() - started < 20
    assert "grace" in str([record.__dict__.get("fields") for record in caplog.records])
