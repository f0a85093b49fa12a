"""Index builds in shards: whoever makes them, each document is in the store once."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlaas import events, indexing, jobs, models, vector_store
from mlaas.contracts import IndexRequest, VectorStoreRef, parse
from mlaas.documents import shared
from mlaas.errors import InvalidRequest
from mlaas.indexing import shard_process, shards
from mlaas.settings import Settings
from mlaas.tasks import Tasks

WORDS = ["higgs", "boson", "neutrino", "mass", "dark", "matter", "gravity", "collider"]
REQUEST: dict[str, Any] = {
    "model": {"name": "minilm"},
    "dataset": {"path": "sharded.jsonl", "loader_kwargs": {"page_content_column": "abstract", "id_column": "id"}},
    "vector_store_save": {"path": "indexes/sharded"},
}


def write(home: Settings, rows: list[tuple[str, str]]) -> None:
    (home.artefacts / "sharded.jsonl").write_text("".join(json.dumps({"id": key, "abstract": text}) + "\n" for key, text in rows))


def texts(count: int) -> list[tuple[str, str]]:
    return [(f"id-{row}", f"{WORDS[row % 8]} {WORDS[row // 8 % 8]}" if row % 10 else "") for row in range(count)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "LEAST_ROWS", 1)
    monkeypatch.setattr(shards, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(shards, "SILENT_SECONDS", 0.0)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The shards that this process makes."""
    numbers: list[int] = []
    make = shards.Shards.make

    def counted(self: shards.Shards, shard: int, folder: Path, progress: Callable[[int], None] | None = None) -> None:
        numbers.append(shard)
        make(self, shard, folder, progress)

    monkeypatch.setattr(shards.Shards, "make", counted)
    return numbers


def accepted(home: Settings, folder: Path, rows: list[tuple[str, str]]) -> tuple[str, Settings]:
    """An accepted task, and the settings of pod 0 of 3."""
    write(home, rows)
    event = indexing.accept(parse(IndexRequest, REQUEST), events.new("index", REQUEST), False)
    folder.mkdir(exist_ok=True)
    (folder / "event").write_text(json.dumps(events.to_json(event)))
    return str(event["subject"]), dataclasses.replace(home, index_shards=3, completion_index=0, event_path=folder)


def build(task_id: str, settings: Settings) -> dict[str, Any]:
    run = Tasks(shared()).begin(task_id)
    assert run
    index: dict[str, Any] = indexing.build(jobs.Job(run, Tasks(shared()), settings))["result"]["index"]
    return index


def held(index: dict[str, Any]) -> list[str]:
    store = models.load_store(VectorStoreRef(path=index["path"])).store
    return sorted(row[0] for segment in store.segments for row in segment.connection().execute("SELECT id FROM documents"))


def drafts(home: Settings) -> list[Path]:
    return list((home.artefacts / "indexes" / "sharded").glob(".draft-*"))


EXPECTED = sorted(key for key, text in texts(64) if text)


def test_a_build_whose_other_processes_never_come_is_done_by_the_one_there_is(home: Settings, tmp_path: Path, made: list[int]) -> None:
    index = build(*accepted(home, tmp_path / "job", texts(64)))
    assert made == [0, 1, 2]
    assert held(index) == EXPECTED
    assert len(models.load_store(VectorStoreRef(path=index["path"])).store.segments) == 1  # few documents become one segment
    assert not drafts(home)


def test_shards_that_others_have_made_are_taken_as_they_are(
    home: Settings, tmp_path: Path, made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlaas.vector_store.union.FLAT_ROWS", 10)
    task_id, settings = accepted(home, tmp_path / "job", texts(64))
    for number in (1, 2, 2, 7):  # twice changes nothing, and there is no shard 7
        assert shard_process.main(dataclasses.replace(settings, completion_index=number)) == 0
    assert made == [1, 2]
    index = build(task_id, settings)
    assert made == [1, 2, 0]
    assert held(index) == EXPECTED
    store = models.load_store(VectorStoreRef(path=index["path"])).store
    assert sorted(one.count for one in store.manifest.segments) == sorted(len(EXPECTED[number::3]) for number in range(3))
    assert not drafts(home)


def test_shards_that_are_done_outlive_a_kill(home: Settings, tmp_path: Path, made: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    task_id, settings = accepted(home, tmp_path / "job", texts(64))
    combine, kills = vector_store.combine, [KeyboardInterrupt]

    def killed_once(*args: Any, **options: Any) -> vector_store.Manifest:
        if kills:
            raise kills.pop()
        return combine(*args, **options)

    monkeypatch.setattr(vector_store, "combine", killed_once)
    with pytest.raises(KeyboardInterrupt):
        build(task_id, settings)
    assert held(build(task_id, settings)) == EXPECTED
    assert made == [0, 1, 2]


def test_a_shard_of_other_data_is_not_taken(home: Settings, tmp_path: Path, made: list[int]) -> None:
    task_id, settings = accepted(home, tmp_path / "job", texts(64))
    assert shard_process.main(dataclasses.replace(settings, completion_index=1)) == 0
    write(home, texts(40))
    index = build(task_id, settings)
    assert made == [1, 0, 1, 2]
    assert held(index) == sorted(key for key, text in texts(40) if text)


def test_an_id_that_two_shards_have_is_refused(home: Settings, tmp_path: Path) -> None:
    rows = [*texts(64), ("id-1", "gravity")]
    with pytest.raises(InvalidRequest, match="'id-1'") as caught:
        build(*accepted(home, tmp_path / "job", rows))
    assert caught.value.field == "dataset.loader_kwargs.id_column"


def test_a_shard_of_a_task_that_has_ended_is_not_made(home: Settings, tmp_path: Path, made: list[int]) -> None:
    task_id, settings = accepted(home, tmp_path / "job", texts(64))
    Tasks(shared()).cancel(task_id)
    assert shard_process.main(dataclasses.replace(settings, completion_index=1)) == 0
    assert made == []


def test_a_process_that_beats_is_waited_for_and_one_that_falls_silent_is_not(
    home: Settings, tmp_path: Path, made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SILENT_SECONDS", 0.3)
    task_id, settings = accepted(home, tmp_path / "job", texts(64))
    source = shards.Source.load(parse(IndexRequest, REQUEST), settings)
    other = shards.Shards.of(source, task_id, source.count(), settings)
    beats = iter(range(3))
    tell = shards.Shards._tell

    def beating(self: shards.Shards, job: jobs.Job, shard: int, done: int) -> None:
        if shard == 1 and 1 not in made and (number := next(beats, None)) is not None:
            other.beat(1, number, tmp_path)
        tell(self, job, shard, done)

    monkeypatch.setattr(shards.Shards, "_tell", beating)
    assert held(build(task_id, settings)) == EXPECTED
    assert next(beats, None) is None  # it was waited for while it beat
    assert made == [0, 1, 2]


def test_on_one_machine_processes_make_the_shards_and_none_is_left(home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("MLAAS_HOME", str(home.home))
    monkeypatch.setenv("MLAAS_DOCUMENTS", str(home.documents))
    task_id, settings = accepted(home, tmp_path / "job", texts(2400))
    environment = {**os.environ, "K_EVENT_PATH": str(settings.event_path), "MLAAS_INDEX_SHARDS": "2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", "mlaas.indexing"], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert Tasks(shared()).get(task_id)["result"]["index"]["count"] == 2160
    assert "shard.done" in done.stderr
    assert not drafts(home)
