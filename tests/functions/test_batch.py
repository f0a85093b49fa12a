"""Predictions for a file: accepted by the function, done by a job as JobSink starts it, the same row for row as one by one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from mlaas import events, models, settings
from mlaas.batch import CONTRACTS, accept, drafts
from mlaas.batch.job import predict
from mlaas.contracts import ModelRef, parse
from mlaas.documents import shared
from mlaas.errors import InvalidRequest, Unavailable
from mlaas.jobs import Job
from mlaas.settings import Settings
from mlaas.storage.manifests import sha256_of
from mlaas.tasks import Cancelled, Tasks

TEXTS = ["INFN Frascati", "somewhere", "", 'CNAF Bologna, "Italy"', "   ", "Università di Firenze"]
LABELS = ["LNF", "[NoSite]", None, "CNAF", None, "FI"]


@pytest.fixture
def configured(home: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Settings]:
    """A home whose files are this test's own; chunks have two rows."""
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.setenv("MLAAS_HOME", str(tmp_path / "own"))
    monkeypatch.setenv("MLAAS_ROOT", str(root))
    monkeypatch.setenv("MLAAS_BATCH_ROWS", "2")
    for name in ("models", "indexes"):
        shutil.copytree(home.artefacts / name, root / name)
    settings.current.cache_clear()
    models.forget()
    yield settings.current()
    settings.current.cache_clear()


def csv(place: Path, texts: list[str] = TEXTS) -> dict[str, Any]:
    """Write a file with the columns `id` and `affiliation`; the reference to it."""
    import csv as library

    with place.open("w", newline="") as file:
        writer = library.writer(file)
        writer.writerow(["id", "affiliation"])
        writer.writerows([f"a{number}", text] for number, text in enumerate(texts))
    columns = {"page_content_column": "affiliation", "id_column": "id"}
    return {"path": place.name, "size": place.stat().st_size, "sha256": sha256_of(place), "loader_kwargs": columns}


def classify(dataset: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": {"name": "infn-structures"}, "predict_input": {"dataset": dataset}, **more}


def accepted(request: dict[str, Any], capability: str = "classify") -> Any:
    return accept(parse(CONTRACTS[capability], request), events.new(capability, request), False)


def job_of(request: dict[str, Any], capability: str = "classify") -> Job:
    tasks = Tasks(shared())
    run = tasks.begin(accepted(request, capability)["subject"])
    assert run
    return Job(run, tasks, settings.current())


def again(job: Job) -> Job:
    """The run that follows when `job` was killed."""
    run = job.tasks.begin(job.run.task_id)
    assert run
    return Job(run, job.tasks, job.settings)


def rows(configured: Settings, done: dict[str, Any]) -> list[dict[str, Any]]:
    place = configured.artefacts / done["result"]["predictions"]["path"]
    assert (place.stat().st_size, sha256_of(place)) == (done["result"]["predictions"]["size"], done["result"]["predictions"]["sha256"])
    if place.suffix == ".jsonl":
        return [json.loads(line) for line in place.read_text().splitlines()]
    found: list[dict[str, Any]] = parquet.read_table(place).to_pylist()
    return found


def left_behind(configured: Settings) -> list[Path]:
    return list(configured.artefacts.rglob(".draft-*"))


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_every_row_is_classified_in_order_and_rows_without_text_get_null(configured: Settings, format: str) -> None:
    done = predict(job_of(classify(csv(configured.artefacts / "a.csv"), output={"format": format})))
    found = rows(configured, done)
    assert [one["row"] for one in found] == list(range(6))
    assert [one["id"] for one in found] == [f"a{number}" for number in range(6)]
    assert [one["text"] for one in found] == TEXTS
    assert [one["label"] for one in found] == LABELS
    assert [one["truncated"] for one in found] == [None if label is None else False for label in LABELS]
    assert list(found[0]) == ["row", "id", "text", "label", "score", "truncated"]
    assert done["dataset"] == {"rows": 6, "rows_without_text": 2}
    assert done["result"]["predictions"]["rows"] == 6
    assert done["result"]["model"]["version"] == "1"
    assert not left_behind(configured)


def test_the_scores_are_those_of_the_function(configured: Settings) -> None:
    from mlaas import classifier

    done = predict(job_of(classify(csv(configured.artefacts / "a.csv"), top_k=2)))
    loaded = models.load(ModelRef(name="infn-structures"))
    expected = classifier.classify(loaded.model, [text for text in TEXTS if text.strip()], 2)
    found = [one for one in rows(configured, done) if one["label"]]
    assert [one["scores"] for one in found] == [[score.model_dump() for score in one.scores] for one in expected]


def test_the_output_goes_where_it_is_asked_for_without_the_text_and_serves_as_a_data_set(configured: Settings) -> None:
    output = {"path": "mine/out", "format": "jsonl", "include_text": False}
    done = predict(job_of(classify(csv(configured.artefacts / "a.csv"), output=output)))
    assert done["result"]["predictions"]["path"].startswith("mine/out/")
    assert "text" not in rows(configured, done)[0]
    reference = {name: done["result"]["predictions"][name] for name in ("path", "storage_type", "size", "sha256")}
    chained = classify(reference | {"loader_kwargs": {"page_content_column": "label"}})
    assert len(rows(configured, predict(job_of(chained)))) == 6


def test_the_request_of_the_how_to_works_as_it_stands(configured: Settings) -> None:
    (configured.artefacts / "affiliations.tsv").write_text("affiliation\tlabel\nINFN Frascati\tLNF\nINFN CNAF\tCNAF\n")
    page = (Path(__file__).parents[2] / "docs" / "batch.md").read_text()
    request, result = (json.loads(block.partition("```")[0]) for block in page.split("```json\n")[1:])
    done = predict(job_of(request))
    assert [one["label"] for one in rows(configured, done)] == ["LNF", "CNAF"]
    assert set(done["result"]) == set(result)
    assert set(done["result"]["predictions"]) == set(result["predictions"])


def test_masks_are_filled(configured: Settings) -> None:
    (configured.artefacts / "m.jsonl").write_text('{"text": "the [MASK] boson was found"}\n{"text": null}\n')
    request = {"model": {"name": "physics-lm"}, "predict_input": {"dataset": {"path": "m.jsonl"}}, "top_k": 2}
    found = rows(configured, predict(job_of(request, "fill_mask")))
    assert [one["filled"] for one in found] == ["the higgs boson was found", None]
    assert len(found[0]["masks"][0]) == 2
    assert found[1] == {"row": 1, "text": None, "filled": None, "masks": None, "truncated": None}


def test_a_text_without_a_mask_fails_the_task_and_names_its_row(configured: Settings) -> None:
    texts = ["the [MASK] boson", "the [MASK] boson", "", "the boson"]
    (configured.artefacts / "m.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    request = {"model": {"name": "physics-lm"}, "predict_input": {"dataset": {"path": "m.jsonl"}}}
    with pytest.raises(InvalidRequest, match=r"row 3 .*no mask") as caught:
        predict(job_of(request, "fill_mask"))
    assert caught.value.field == "predict_input.dataset"
    assert not left_behind(configured)


def test_neighbours_are_found(configured: Settings) -> None:
    (configured.artefacts / "q.csv").write_text("text\nneutrino mass\nthe higgs boson was found at the hadron collider\n")
    request = {"dataset": {"name": "abstracts"}, "search_input": {"dataset": {"path": "q.csv"}}, "top_k": 2}
    done = predict(job_of(request, "search"))
    found = rows(configured, done)
    assert [one["neighbours"][0]["id"] for one in found] == ["syn-2", "syn-1"]
    assert set(found[0]["neighbours"][0]) == {"id", "score", "text"}
    assert done["result"]["index"]["name"] == "abstracts"


@pytest.mark.parametrize(
    ("content", "change", "field", "said"),
    [
        ("text\nx\n", {}, "predict_input.dataset", "no column `affiliation`"),
        ('id,affiliation\n1,a\n2,"b\n', {}, "predict_input.dataset.path", "bad.csv, line 3"),
        ("id,affiliation\n1,a\n2\n", {}, "predict_input.dataset.path", "bad.csv, line 3"),
        ("id,affiliation\n1,a\n", {"sha256": "0" * 64}, "predict_input.dataset.sha256", "another sha256"),
        ("id,affiliation\n1,a\n", {"size": 3}, "predict_input.dataset.size", "bytes, not 3"),
    ],
)
def test_a_bad_file_fails_the_task_with_file_line_and_field_before_anything_is_predicted(
    configured: Settings, content: str, change: dict[str, Any], field: str, said: str
) -> None:
    (configured.artefacts / "bad.csv").write_text(content)
    dataset = {"path": "bad.csv", "loader_kwargs": {"page_content_column": "affiliation", "id_column": "id"}}
    with pytest.raises(InvalidRequest, match=said) as caught:
        predict(job_of(classify(dataset | change)))
    assert caught.value.field == field
    assert caught.value.remedy
    assert str(configured.artefacts) not in caught.value.detail
    assert not left_behind(configured)


def test_a_file_with_a_header_only_gives_a_result_without_rows(configured: Settings) -> None:
    assert rows(configured, predict(job_of(classify(csv(configured.artefacts / "a.csv", []))))) == []


class Killed(BaseException):
    """Ends a run the way a kill does: nothing gets to handle it."""


def kill_after(monkeypatch: pytest.MonkeyPatch, calls: int) -> list[int]:
    """Let a run die when it is about to keep one more part than `calls`; the numbers of the parts that were kept."""
    kept: list[int] = []
    real = drafts.Draft.add

    def add(self: drafts.Draft, number: int, *rest: Any) -> None:
        if len(kept) == calls:
            raise Killed
        real(self, number, *rest)
        kept.append(number)

    monkeypatch.setattr(drafts.Draft, "add", add)
    return kept


def test_a_run_that_was_killed_is_resumed_after_its_last_part(configured: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    job = killed_job(configured, monkeypatch, 2)
    assert left_behind(configured)
    kept = kill_after(monkeypatch, 99)
    found = rows(configured, predict(again(job)))
    assert kept == [2]
    assert [one["label"] for one in found] == LABELS


@pytest.mark.parametrize("changed", ["dataset_sha256", "models", "chunk_rows", "request"])
def test_parts_for_other_data_another_model_or_another_request_are_made_anew(
    configured: Settings, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    job = killed_job(configured, monkeypatch, 2)
    record = left_behind(configured)[0] / "draft.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {changed: "other"}))
    kept = kill_after(monkeypatch, 99)
    assert len(rows(configured, predict(again(job)))) == 6
    assert kept == [0, 1, 2]


def test_a_damaged_part_is_made_anew(configured: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    job = killed_job(configured, monkeypatch, 2)
    (left_behind(configured)[0] / "part-000001.parquet").write_bytes(b"PAR1")
    second = again(job)
    with pytest.raises(Unavailable, match="made anew"):
        predict(second)
    assert [one["label"] for one in rows(configured, predict(again(second)))] == LABELS


def test_a_run_that_was_killed_after_it_published_finds_its_result(configured: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(classify(csv(configured.artefacts / "a.csv")))
    with monkeypatch.context() as patched:
        patched.setattr(drafts.Draft, "remove", lambda self: (_ for _ in ()).throw(Killed))
        patched.setattr(drafts.Draft, "resume", lambda self, record, folder: 0)
        with pytest.raises(Killed):
            predict(job)
    kept = kill_after(monkeypatch, 0)
    assert len(rows(configured, predict(again(job)))) == 6
    assert kept == []
    assert not left_behind(configured)


def test_data_that_change_while_they_are_read_fail_the_task(configured: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = csv(configured.artefacts / "a.csv")
    real = drafts.Draft.add

    def add(self: drafts.Draft, *rest: Any) -> None:
        real(self, *rest)
        with (configured.artefacts / "a.csv").open("a") as file:
            file.write("\n")

    monkeypatch.setattr(drafts.Draft, "add", add)
    with pytest.raises(InvalidRequest, match="changed while"):
        predict(job_of(classify(dataset)))


def killed_job(configured: Settings, monkeypatch: pytest.MonkeyPatch, parts: int) -> Job:
    """A job that was killed when it had kept `parts` parts."""
    job = job_of(classify(csv(configured.artefacts / "a.csv")))
    with monkeypatch.context() as patched:
        kill_after(patched, parts)
        with pytest.raises(Killed):
            predict(job)
    return job


def test_a_cancelled_run_leaves_nothing(configured: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    job = again(killed_job(configured, monkeypatch, 1))
    job.tasks.cancel(job.run.task_id)
    with pytest.raises(Cancelled):
        predict(job)
    assert not left_behind(configured)


def test_a_run_that_lost_its_task_leaves_the_draft_to_the_other(configured: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    job = killed_job(configured, monkeypatch, 1)
    other = again(job)
    job._cancelled.set()  # as its heartbeat does when it finds another run
    with pytest.raises(Cancelled):
        predict(job)
    assert left_behind(configured)
    assert [one["label"] for one in rows(configured, predict(other))] == LABELS


def test_a_redelivered_request_makes_one_task_also_when_the_file_is_gone(configured: Settings) -> None:
    request = classify(csv(configured.artefacts / "a.csv"))
    cause = events.new("classify", request)
    first = accept(parse(CONTRACTS["classify"], request), cause, False)
    (configured.artefacts / "a.csv").unlink()
    second = accept(parse(CONTRACTS["classify"], request), cause, False)
    assert first["id"] == second["id"]
    assert first["type"] == "it.infn.mlaas.classify.accepted.v1"
    assert len(Tasks(shared()).find()[0]) == 1


def test_a_job_that_is_killed_in_the_middle_ends_with_every_row_once(configured: Settings, tmp_path: Path) -> None:
    texts = [f"{TEXTS[number % 6]} {number}" if number % 6 not in (2, 4) else "" for number in range(20_000)]
    event = accepted(classify(csv(configured.artefacts / "big.csv", texts)))
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "event").write_text(json.dumps(events.to_json(event)))
    environment = {**os.environ, "K_EVENT_PATH": str(tmp_path / "job"), "MLAAS_BATCH_ROWS": "1000"}

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "mlaas.batch"], env=environment, stderr=subprocess.PIPE)

    def parts() -> set[str]:
        return {path.name for folder in left_behind(configured) for path in folder.glob("part-*.parquet")}

    tasks, task_id = Tasks(shared()), event["subject"]
    for stop_at in (3, 9):
        process = start()
        deadline = time.monotonic() + 120
        while len(parts()) < stop_at:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()
        process.communicate()
        assert tasks.get(task_id)["task_status"] == "running"
        assert len(parts()) >= stop_at
    process = start()
    process.communicate(timeout=120)
    assert process.returncode == 0
    task = tasks.get(task_id)
    assert task["task_status"] == "succeeded", task.get("error")
    assert task["stats"]["attempts"] == 3
    found = rows(configured, task)
    assert [one["row"] for one in found] == list(range(20_000))
    assert [one["text"] for one in found] == texts
    assert [one["label"] for one in found] == [LABELS[number % 6] for number in range(20_000)]
    assert not left_behind(configured)
    assert [owed["type"] for _, owed in tasks.owed()] == ["it.infn.mlaas.classify.succeeded.v1"]
