"""Jobs as JobSink starts them: an event in a folder, a process, and a task that always ends."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlaas import events, indexing, jobs, models, storage, tracing
from mlaas.catalog import Catalog
from mlaas.contracts import IndexRequest, ModelRef, TrainRequest, VectorStoreRef, parse
from mlaas.documents import shared
from mlaas.settings import Settings
from mlaas.tasks import Tasks
from mlaas.testing.homes import ABSTRACTS
from mlaas.training.accept import accept

INDEX: dict[str, Any] = {
    "model": {"name": "minilm"},
    "dataset": {"path": "abstracts.jsonl", "loader_kwargs": {"page_content_column": "abstract", "id_column": "id"}},
    "vector_store_save": {"path": "indexes/new"},
}
TRAIN: dict[str, Any] = {
    "model": {"path": "checkpoints/bert", "objective": "text-classification"},
    "model_train": {"epochs": 5, "batch_size": 8, "optimizer": {"init_lr": 3e-3}},
    "dataset": {"path": "rows.jsonl", "train_test_split": 0.2},
    "model_save": {"path": "models/birds"},
}


def accepted(capability: str, request: dict[str, Any], folder: Path) -> tuple[str, Path]:
    """Accept a task as its function does; its id, and the folder with its event."""
    cause = events.new(capability, request)
    event = (indexing.accept(parse(IndexRequest, request), cause, False) if capability == "index"
             else accept(parse(TrainRequest, request), cause, False))  # fmt: skip
    folder.mkdir()
    (folder / "event").write_text(json.dumps(events.to_json(event)))
    return event["subject"], folder


def start(module: str, folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "K_EVENT_PATH": str(folder), "K_EXECUTION_MODE": "batch", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", module], env=environment, stderr=subprocess.PIPE)


def run(module: str, folder: Path) -> int:
    process = start(module, folder)
    process.communicate(timeout=120)
    return process.returncode


def owed() -> list[str]:
    return [event["type"].split(".")[4] for _, event in Tasks(shared()).owed()]


@pytest.fixture
def documents(home: Settings) -> Path:
    file = home.artefacts / "abstracts.jsonl"
    file.write_text("".join(json.dumps({"id": key, "abstract": text, "field": field}) + "\n" for key, text, field in ABSTRACTS))
    return file


def test_an_index_job_publishes_a_version_that_search_serves_and_owes_its_event(home: Settings, documents: Path, tmp_path: Path) -> None:
    work = home.home / "work"
    before = set(work.iterdir()) if work.exists() else set()  # what jobs that other tests killed have left
    task_id, folder = accepted("index", INDEX, tmp_path / "job")
    assert run("mlaas.indexing", folder) == 0
    task = Tasks(shared()).get(task_id)
    assert task["task_status"] == "succeeded"
    assert task["result"]["index"]["count"] == 3
    assert owed() == ["succeeded"]
    loaded = models.load_store(VectorStoreRef(name="new"))
    assert loaded.model == ModelRef(name="minilm", revision="1")
    assert Catalog(shared()).followers("minilm")[0]["name"] in ("new", "abstracts")
    assert run("mlaas.indexing", folder) == 0  # the same event again: nothing happens
    assert owed() == ["succeeded"]
    assert set(work.iterdir()) <= before


def test_an_index_of_a_pinned_model_version_follows_nothing(home: Settings, documents: Path, tmp_path: Path) -> None:
    pinned = INDEX | {"model": {"name": "minilm", "revision": "1"}}
    assert run("mlaas.indexing", accepted("index", pinned, tmp_path / "job")[1]) == 0
    entry = Catalog(shared()).resolve("indexes", "new")
    assert entry["count"] == 3
    assert [one["name"] for one in entry["columns"]] == ["id", "text", "field"]
    assert entry["preview"][0] == {"id": "syn-1", "text": ABSTRACTS[0][1], "field": "hep-ex"}
    assert "new" not in {entry["name"] for entry in Catalog(shared()).followers("minilm")}


def test_an_index_is_built_of_the_shards_that_a_pattern_names(home: Settings, documents: Path, tmp_path: Path) -> None:
    rows = documents.read_text().splitlines(keepends=True)
    (home.artefacts / "abstracts").mkdir()
    for shard, row in enumerate(rows):
        (home.artefacts / "abstracts" / f"part-{shard}.jsonl").write_text(row)
    asked = INDEX | {"dataset": INDEX["dataset"] | {"path": "abstracts/part-[01].jsonl"}, "vector_store_save": {"path": "indexes/sharded"}}
    task_id, folder = accepted("index", asked, tmp_path / "job")
    assert run("mlaas.indexing", folder) == 0
    assert Tasks(shared()).get(task_id)["result"]["index"]["count"] == 2


@pytest.mark.parametrize(("content", "said"), [('{"id": "1", "abstrakt": "x"}\n', "abstract"), ("{broken", "line 1"), ("", "")])
def test_a_job_with_bad_data_fails_with_the_reason_and_is_not_tried_again(
    home: Settings, documents: Path, tmp_path: Path, content: str, said: str
) -> None:
    documents.write_text(content)
    task_id, folder = accepted("index", INDEX, tmp_path / "job")
    assert run("mlaas.indexing", folder) == 0
    task = Tasks(shared()).get(task_id)
    assert task["task_status"] == "failed"
    assert said in task["error"]["detail"] + task["error"]["remedy"]
    assert "/tmp" not in str(task["error"])
    assert owed() == ["failed"]


@pytest.mark.training
def test_a_training_job_publishes_a_model_that_classifies(home: Settings, tmp_path: Path) -> None:
    from mlaas import classifier
    from mlaas.testing.tiny_checkpoints import write_checkpoint, write_rows

    if not (home.artefacts / "checkpoints" / "bert").exists():
        write_checkpoint(home.artefacts / "checkpoints" / "bert")
    write_rows(home.artefacts / "rows.jsonl")
    with tracing.span("request") as span:
        task_id, folder = accepted("train", TRAIN, tmp_path / "job")
    assert run("mlaas.training.job", folder) == 0
    task = Tasks(shared()).get(task_id)
    assert task["task_status"] == "succeeded", task.get("error")
    assert task["evaluation"]["accuracy"] > 0.9
    assert (task["dataset"]["samples_train"], len(task["history"]["loss"])) == (96, 5)
    card = Catalog(shared()).resolve("models", "birds")["card"]
    assert card["figures"]["metrics"]["accuracy"] == task["evaluation"]["accuracy"]
    assert card["figures"]["lineage"]["task_id"] == task_id
    assert card["figures"]["lineage"]["trace_id"] == span.trace_id
    assert card["figures"]["lineage"]["data_sha256"] == hashlib.sha256((home.artefacts / "rows.jsonl").read_bytes()).hexdigest()
    assert str(home.home) not in card["markdown"]
    loaded = models.load(ModelRef(name="birds"))
    assert [one.label for one in classifier.classify(loaded.model, ["the raven heron old", "the quartz flint near town"])] == [
        "bird",
        "stone",
    ]


@pytest.mark.training
def test_shards_that_a_pattern_names_give_the_model_of_the_single_file(home: Settings, tmp_path: Path) -> None:
    from mlaas.testing.tiny_checkpoints import write_checkpoint, write_rows

    if not (home.artefacts / "checkpoints" / "bert").exists():
        write_checkpoint(home.artefacts / "checkpoints" / "bert")
    write_rows(home.artefacts / "rows.jsonl")
    rows = (home.artefacts / "rows.jsonl").read_text().splitlines(keepends=True)
    (home.artefacts / "shards").mkdir()
    size = -(-len(rows) // 12)
    for shard in range(12):
        (home.artefacts / "shards" / f"part-{shard}.jsonl").write_text("".join(rows[shard * size : (shard + 1) * size]))
    tasks = []
    for path in ("rows.jsonl", "shards/part-*.jsonl"):
        asked = TRAIN | {"model_train": TRAIN["model_train"] | {"epochs": 2}, "dataset": TRAIN["dataset"] | {"path": path}}
        task_id, folder = accepted("train", asked, tmp_path / f"job-{len(tasks)}")
        assert run("mlaas.training.job", folder) == 0
        tasks.append(Tasks(shared()).get(task_id))
        assert tasks[-1]["task_status"] == "succeeded", tasks[-1].get("error")
    whole, sharded = tasks
    assert sharded["history"]["loss"] == whole["history"]["loss"]
    same = ("samples_train", "samples_test", "tokens", "classes")
    assert [sharded["dataset"][name] for name in same] == [whole["dataset"][name] for name in same]
    assert sharded["evaluation"]["loss"] == whole["evaluation"]["loss"]


@pytest.mark.training
def test_a_training_job_needs_no_checkpoint_for_a_model_without_a_neural_network(home: Settings, tmp_path: Path) -> None:
    from mlaas import classifier
    from mlaas.testing.tiny_checkpoints import write_rows

    write_rows(home.artefacts / "rows.jsonl")
    asked = {
        "model": {"architecture": "tfidf-linear", "objective": "text-classification"},
        "dataset": {"path": "rows.jsonl", "train_test_split": 0.2},
        "model_save": {"path": "models/linear"},
    }
    task_id, folder = accepted("train", asked, tmp_path / "job")
    assert run("mlaas.training.job", folder) == 0
    task = Tasks(shared()).get(task_id)
    assert task["task_status"] == "succeeded", task.get("error")
    assert task["evaluation"]["accuracy"] > 0.9
    loaded = models.load(ModelRef(name="linear"))
    assert [one.label for one in classifier.classify(loaded.model, ["the raven heron", "quartz flint"])] == ["bird", "stone"]


@pytest.mark.training
def test_a_job_that_is_stopped_gives_its_task_back_and_one_that_is_killed_is_run_again(home: Settings, tmp_path: Path) -> None:
    from mlaas.testing.tiny_checkpoints import write_checkpoint, write_rows

    if not (home.artefacts / "checkpoints" / "bert").exists():
        write_checkpoint(home.artefacts / "checkpoints" / "bert")
    write_rows(home.artefacts / "rows.jsonl")
    long = TRAIN | {"model_train": {"epochs": 1000, "batch_size": 8}}
    task_id, folder = accepted("train", long, tmp_path / "job")
    tasks = Tasks(shared())

    def begin(attempt: int) -> subprocess.Popen[bytes]:
        process = start("mlaas.training.job", folder)
        deadline = time.monotonic() + 60
        while tasks.get(task_id)["task_status"] != "running" or tasks.get(task_id)["stats"]["attempts"] != attempt:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        return process

    stopped = begin(1)
    stopped.send_signal(signal.SIGTERM)
    stopped.communicate(timeout=60)
    assert stopped.returncode == 128 + signal.SIGTERM
    assert tasks.get(task_id)["task_status"] == "accepted"
    killed = begin(1)
    killed.kill()
    killed.communicate()
    assert tasks.get(task_id)["task_status"] == "running"
    again = begin(2)
    tasks.cancel(task_id)
    again.communicate(timeout=60)
    assert again.returncode == 0
    assert tasks.get(task_id)["task_status"] == "cancelled"
    assert owed() == ["cancelled"]


STOPPED = """
import os, signal
from mlaas import jobs, outbox, tasks, trace_export
where, name = {{"begin": (tasks.Tasks, "begin"), "start": (trace_export, "start"), "flush": (outbox, "flush")}}[{moment!r}]
original = getattr(where, name)
def told(*arguments):
    outcome = original(*arguments)
    os.kill(os.getpid(), signal.SIGTERM)
    return outcome
setattr(where, name, told)
jobs.exit_with(lambda job: {{}})
"""


@pytest.mark.parametrize(("moment", "status"), [("begin", "accepted"), ("start", "accepted"), ("flush", "succeeded")])
def test_a_job_that_is_stopped_at_any_moment_counts_no_attempt_and_loses_no_outcome(
    home: Settings, documents: Path, tmp_path: Path, moment: str, status: str
) -> None:
    task_id, folder = accepted("index", INDEX, tmp_path / "job")
    environment = {**os.environ, "K_EVENT_PATH": str(folder)}
    command = [sys.executable, "-c", STOPPED.format(moment=moment)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 128 + signal.SIGTERM, ran.stderr
    task = Tasks(shared()).get(task_id)
    assert (task["task_status"], task["stats"]["attempts"]) == (status, int(status == "succeeded"))


@pytest.mark.training
def test_a_training_that_is_killed_and_stopped_goes_on_from_its_checkpoints_to_the_very_same_model(home: Settings, tmp_path: Path) -> None:
    from mlaas.testing.tiny_checkpoints import write_checkpoint, write_rows

    if not (home.artefacts / "checkpoints" / "bert").exists():
        write_checkpoint(home.artefacts / "checkpoints" / "bert")
    write_rows(home.artefacts / "rows.jsonl")
    often = {"epochs": 16, "batch_size": 4, "optimizer": {"init_lr": 3e-3}, "checkpoint_minutes": 0.002}
    request = TRAIN | {"model_train": often}
    tasks = Tasks(shared())
    whole, folder = accepted("train", request | {"model_save": {"path": "models/whole"}}, tmp_path / "whole")
    assert run("mlaas.training.job", folder) == 0
    task_id, folder = accepted("train", request | {"model_save": {"path": "models/broken"}}, tmp_path / "broken")
    drafts = home.artefacts / "models" / "broken" / f".draft-{task_id}"

    def begun(after: int) -> tuple[subprocess.Popen[bytes], int]:
        """A job that has written a checkpoint beyond step `after`, and the step of that."""
        process, deadline = start("mlaas.training.job", folder), time.monotonic() + 60
        while (step := checkpoint_step(drafts)) <= after:
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        return process, step

    killed, step = begun(20)
    killed.kill()
    killed.communicate()
    stopped, step = begun(step + 20)
    stopped.send_signal(signal.SIGTERM)
    log = stopped.communicate(timeout=60)[1]
    assert b"checkpoint.resumed" in log
    assert tasks.get(task_id)["task_status"] == "accepted"
    assert checkpoint_step(drafts) >= step
    assert run("mlaas.training.job", folder) == 0
    task, reference = tasks.get(task_id), tasks.get(whole)
    assert task["task_status"] == "succeeded", task.get("error")
    assert task["result"]["model"]["digest"] == reference["result"]["model"]["digest"]
    assert [point["step"] for point in task["history"]["steps"]] == [point["step"] for point in reference["history"]["steps"]]
    assert task["history"]["loss"] == reference["history"]["loss"]
    assert not drafts.exists()


def checkpoint_step(drafts: Path) -> int:
    """The step of the last complete checkpoint, -1 without one."""
    try:
        stored = json.loads((drafts / "manifest.json").read_text())["files"]["state.json"]["stored"]
        return int(json.loads((drafts / stored).read_text())["meter"]["step"])
    except FileNotFoundError:  # none yet, or just replaced by the next one
        return -1


def test_a_job_without_its_event_says_what_is_missing(home: Settings, tmp_path: Path) -> None:
    process = start("mlaas.indexing", tmp_path / "absent")
    assert b"K_EVENT_PATH" in process.communicate(timeout=30)[1]
    assert process.returncode == 1


class SlowStore:
    """A storage that says how far its download is, and has what is in local storage."""

    def exists(self, path: str, revision: str | None, settings: Settings) -> bool:
        return storage.exists(path, "local", settings=settings)

    def fetch(self, path: str, revision: str | None, settings: Settings, progress: storage.Progress | None = None) -> Path:
        assert progress
        progress(5_000_000, 20_000_000)
        return storage.fetch(path, "local", settings=settings)


def test_an_index_job_says_how_much_of_its_data_is_downloaded(
    home: Settings, documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(storage.BACKENDS, "s3", SlowStore())
    monkeypatch.setattr(jobs, "PROGRESS_EVENT_SECONDS", 0.0)
    task_id, _ = accepted("index", {**INDEX, "dataset": {**INDEX["dataset"], "storage_type": "s3"}}, tmp_path / "job")
    told: list[dict[str, Any]] = []

    class Watched(jobs.Job):
        def report(self, progress: Any, **fields: Any) -> None:
            super().report(progress, **fields)
            told.append(self.tasks.get(task_id)["progress"])

    run = Tasks(shared()).begin(task_id)
    assert run
    indexing.build(Watched(run, Tasks(shared()), home))
    assert {"phase": "download", "percent": 0.0, "bytes": 5_000_000, "of_bytes": 20_000_000} in told


def alive(text: str) -> list[int]:
    """The ids of processes whose command line holds `text`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text()
        except OSError:  # it has ended
            continue
        if text in command and "trial" in command:
            found.append(int(folder.name))
    return found


def waiting_for(seen: Callable[[], bool], seconds: float = 120.0) -> bool:
    deadline = time.monotonic() + seconds
    while not seen() and time.monotonic() < deadline:
        time.sleep(0.1)
    return seen()


@pytest.mark.training
def test_a_search_that_is_killed_leaves_no_process_behind_and_goes_on_without_repeating_a_trial(home: Settings, tmp_path: Path) -> None:
    from mlaas.testing.tiny_checkpoints import write_checkpoint, write_rows

    if not (home.artefacts / "checkpoints" / "bert").exists():
        write_checkpoint(home.artefacts / "checkpoints" / "bert")
    write_rows(home.artefacts / "rows.jsonl")
    searched = {"parameters": {"model_train.optimizer.init_lr": {"choices": [3e-3, 1e-5]}}, "trials": 2, "metric": "accuracy"}
    asked = TRAIN | {"search": searched, "model_save": {"path": "models/found"}, "model_train": {"epochs": 40, "batch_size": 4}}
    task_id, folder = accepted("train", asked, tmp_path / "job")

    def trials() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = Tasks(shared()).get(task_id)["history"].get("trials", [])
        return found

    process = start("mlaas.training.job", folder)
    assert waiting_for(lambda: len(trials()) == 2 and bool(trials()[1]["values"]))
    children = alive(str(home.home / "work"))
    process.kill()
    process.communicate(timeout=20)
    first = trials()[0]
    assert first["state"] == "complete"
    assert children
    assert waiting_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children), 20)
    assert run("mlaas.training.job", folder) == 0
    task = Tasks(shared()).get(task_id)
    assert task["task_status"] == "succeeded", task.get("error")
    assert trials()[0] == first
    best = task["result"]["search"]
    assert best["parameters"] == {"model_train.optimizer.init_lr": 3e-3}
    assert best["value"] == task["evaluation"]["accuracy"] > 0.9
    provenance = models.load(ModelRef(name="found")).model.bundle.provenance
    assert provenance["search"]["parameters"] == best["parameters"]
    assert provenance["request"]["model_train"]["optimizer"]["init_lr"] == 3e-3
    assert not list((home.artefacts / "models" / "found").glob(".draft-*"))
