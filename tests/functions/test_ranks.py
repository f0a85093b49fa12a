"""Trainings that several processes share: the same losses as one process, one writer, and nobody left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
from transformers import BertForMaskedLM, BertModel

from mlaas import events
from mlaas.contracts import TrainRequest, parse
from mlaas.documents import shared
from mlaas.settings import Settings
from mlaas.tasks import Tasks
from mlaas.testing.processes import until
from mlaas.testing.tiny_checkpoints import write_checkpoint, write_rows
from mlaas.training.accept import accept
from mlaas.training.run import Outcome, Sources, train

pytestmark = pytest.mark.training

LAUNCHER = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
            "--dynamo_backend", "no", "--main_process_port", "0")  # fmt: skip
KINDS = {"text-classification": BertModel, "masked-lm": BertForMaskedLM}


def asked(objective: str = "text-classification", **model_train: Any) -> dict[str, Any]:
    return {
        "model": {"path": f"checkpoints/ranks-{objective}", "objective": objective},
        "model_train": {"epochs": 2, "batch_size": 7, "optimizer": {"init_lr": 3e-3}, "precision": "fp32", **model_train},
        "dataset": {"path": "rows.jsonl", "train_test_split": 0.2},
        "model_save": {"path": "models/shared"},
    }


@pytest.fixture
def place(home: Settings) -> Path:
    """The root of `local` storage, with rows and checkpoints that drop nothing out."""
    write_rows(home.artefacts / "rows.jsonl")
    for objective, kind in KINDS.items():
        folder = home.artefacts / "checkpoints" / f"ranks-{objective}"
        if not folder.exists():
            config = write_checkpoint(folder, kind) / "config.json"
            without = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
            config.write_text(json.dumps(json.loads(config.read_text()) | without))
    return home.artefacts


def accepted(request: dict[str, Any], folder: Path) -> str:
    event = accept(parse(TrainRequest, request), events.new("train", request), False)
    folder.mkdir()
    (folder / "event").write_text(json.dumps(events.to_json(event)))
    return str(event["subject"])


@contextmanager
def started(folder: Path, *launcher: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "K_EVENT_PATH": str(folder), "K_EXECUTION_MODE": "batch", "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("ab") as log:
        command = [sys.executable, *launcher, "-m", "mlaas.training.job"]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def said(folder: Path) -> list[dict[str, Any]]:
    lines = [re.sub(r"^\[\w+\]:", "", line) for line in (folder / "log").read_text().splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


def others(process: subprocess.Popen[bytes]) -> list[int]:
    """The processes that `process` has started, and theirs."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
    found, front = [], {process.pid}
    while front := {child for child, parent in parents.items() if parent in front}:
        found += front
    return sorted(found)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def of_one_process(place: Path, tmp_path: Path, request: dict[str, Any]) -> Outcome:
    sources = Sources(checkpoint=place / request["model"]["path"], tokenizer=None, table=place / "rows.jsonl")
    return train(parse(TrainRequest, request), sources, tmp_path / "alone", lambda report: None)


def losses(history: dict[str, Any]) -> list[float]:
    return [*history["loss"], *history["validation_loss"], *(point["loss"] for point in history["steps"])]


@pytest.mark.parametrize(
    ("objective", "launcher", "more"),
    [
        ("text-classification", (), {}),
        ("masked-lm", (), {"gradient_accumulation": 2}),
        ("masked-lm", LAUNCHER, {"gradient_accumulation": 2}),
    ],
    ids=["classes", "masks", "launched"],
)
def test_two_processes_have_the_losses_of_one_with_the_same_global_batch(
    place: Path, tmp_path: Path, objective: str, launcher: tuple[str, ...], more: dict[str, Any]
) -> None:
    request = asked(objective, **more, processes=2)
    folder = tmp_path / "job"
    task_id = accepted(request, folder)
    with started(folder, *launcher) as process:
        alone = of_one_process(place, tmp_path, asked(objective, **more))
        assert process.wait(300) == 0
    task = Tasks(shared()).get(task_id)
    assert task["task_status"] == "succeeded", task.get("error")
    assert losses(task["history"]) == pytest.approx(losses(alone.history), abs=1e-4)
    assert len(task["history"]["steps"]) == len(alone.history["steps"])
    assert task["dataset"]["tokens_trained"] == alone.dataset["tokens_trained"]
    assert task["evaluation"]["loss"] == pytest.approx(alone.evaluation["loss"], abs=1e-4)
    assert task["stats"]["attempts"] == 1
    assert [line["event"] for line in said(folder)].count("job.ended") == 1
    assert [event["type"].split(".")[4] for _, event in Tasks(shared()).owed()] == ["succeeded"]


def test_a_training_whose_first_process_is_killed_leaves_nobody_behind_and_goes_on_to_the_losses_of_one_process(
    place: Path, tmp_path: Path
) -> None:
    long = {"epochs": 20, "checkpoint_minutes": 1e-9}
    folder = tmp_path / "job"
    task_id = accepted(asked(**long, processes=2), folder)
    steps = steps_of(task_id)
    with started(folder) as process:
        until(lambda: steps() >= 2, 300, "the second step")
        children = others(process)
        process.kill()
        process.wait()
    before = steps()
    assert len(children) == 1
    until(lambda: not any(map(running, children)), 20, "the end of the other process")
    with started(folder) as again:
        alone = of_one_process(place, tmp_path, asked(**long))
        assert again.wait(300) == 0
    task = Tasks(shared()).get(task_id)
    assert task["task_status"] == "succeeded", task.get("error")
    resumed = next(line for line in said(folder) if line["event"] == "checkpoint.resumed")
    assert 1 <= before - 1 <= resumed["step"] < alone.history["steps"][-1]["step"]  # at most the step that was being kept is lost
    assert losses(task["history"]) == pytest.approx(losses(alone.history), abs=1e-4)
    assert [point["step"] for point in task["history"]["steps"]] == [point["step"] for point in alone.history["steps"]]
    assert (len(task["history"]["loss"]), task["stats"]["attempts"]) == (20, 2)


def test_a_training_whose_second_process_is_killed_fails_within_a_minute_and_says_so(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "job"
    task_id = accepted(asked(epochs=1000, processes=2), folder)
    with started(folder) as process:
        until(lambda: steps_of(task_id)() >= 2, 300, "the second step")
        (second,) = others(process)
        os.kill(second, signal.SIGKILL)
        assert process.wait(60) == 0
    task = Tasks(shared()).get(task_id)
    assert (task["task_status"], task["error"]["field"]) == ("failed", "model_train.processes")
    assert task["error"]["detail"] == "process 2 of the 2 that share the training was killed by signal 9"
    assert "lower `processes`" in task["error"]["remedy"]


def steps_of(task_id: str) -> Callable[[], int]:
    return lambda: int(Tasks(shared()).get(task_id)["progress"].get("step") or 0)
