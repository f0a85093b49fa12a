"""A trial's process: what it says, that it can be ended at an evaluation, and that it goes on from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from queue import Queue
from typing import Any

import pytest

pytest.importorskip("torch")
from mlaas import settings as settings_module
from mlaas import storage
from mlaas.contracts import TrainRequest, parse
from mlaas.settings import load
from mlaas.testing.tiny_checkpoints import write_checkpoint, write_rows
from mlaas.training.trial_process import Heard, Process, Processes
from mlaas.training.trials import Trial

pytestmark = pytest.mark.training


def until(heard: Queue[Heard], process: Process, name: str) -> list[tuple[str, Any]]:
    """What is heard up to the first message `name`, `end` for the process' end; what asks before it is told to go on."""
    found: list[tuple[str, Any]] = []
    while not found or found[-1][0] != name:
        _, message = heard.get(timeout=120)
        found += list(message.items()) if message else [("end", None)]
        if found[-1][0] in ("evaluated", "fitted") and found[-1][0] != name:
            process.answer(True)
        assert found[-1][0] not in ("failed", "end") or name == "end", found[-1]
    return found


def test_a_trial_that_is_stopped_goes_on_from_its_checkpoint_and_ends_when_it_is_not_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLAAS_GRACE_SECONDS", "20")
    settings_module.current.cache_clear()
    settings = load({"MLAAS_HOME": str(tmp_path / "home")})
    sources = {"checkpoint": write_checkpoint(tmp_path / "encoder"), "tokenizer": None, "table": write_rows(tmp_path / "rows.jsonl")}
    request = parse(
        TrainRequest,
        {
            "model": {"path": "tiny", "objective": "text-classification"},
            "model_train": {"epochs": 300, "batch_size": 8, "checkpoint_minutes": 60},
            "dataset": {"path": "rows.jsonl", "train_test_split": 0.2},
            "model_save": {"path": "trained"},
        },
    )
    start, trial = Processes(task_id="task", sources=sources, folder=tmp_path / "work", parallel=2), Trial(number=3, parameters={"x": 1})
    heard: Queue[Heard] = Queue()
    process = start(trial, request, tmp_path / "bundle", heard)
    first = until(heard, process, "evaluated")[-1][1]
    assert first["epoch"] == 1
    assert {"loss", "accuracy", "macro_f1"} <= first["figures"].keys()
    process.answer(True)
    until(heard, process, "evaluated")
    process.answer(True)
    until(heard, process, "report")
    process.stop()
    assert process.end(60) == 128 + 15
    while heard.get()[1] is not None:
        pass
    assert storage.names("trained/.draft-task-trial-3", "local", settings=settings)
    process = start(trial, request, tmp_path / "bundle", heard)
    second = until(heard, process, "evaluated")[-1][1]
    assert second["epoch"] >= 2, "what was trained already is not trained again"
    process.answer(False)
    assert until(heard, process, "end")[-1][0] == "end"
    assert process.end(60) == 0
    assert not (tmp_path / "bundle").exists()
    settings_module.current.cache_clear()
