"""Models and data sets that were made elsewhere: uploaded over HTTP, published, or refused with the reason."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import requests
from transformers import BertForMaskedLM

from mlaas import models, settings, storage
from mlaas.catalog import Catalog
from mlaas.contracts import ModelRef
from mlaas.documents import shared
from mlaas.settings import Settings
from mlaas.tasks import Tasks
from mlaas.testing.tiny_checkpoints import write_checkpoint

FUNCTION = Path(__file__).parents[2] / "functions" / "catalog"
ROWS = b"text,label\nINFN Frascati,LNF\nINFN Pisa,PI\n"


@pytest.fixture
def url(home: Settings, monkeypatch: pytest.MonkeyPatch, served: Callable[[str], str]) -> Iterator[str]:
    monkeypatch.setenv("MLAAS_TOKEN", "t")
    monkeypatch.setenv("MLAAS_UPLOAD_BYTES", str(8 * 1024**2))
    settings.current.cache_clear()
    yield served("catalog")
    shutil.rmtree(home.artefacts / "uploads", ignore_errors=True)


def send(url: str, place: str, body: Any, filename: str, **query: Any) -> requests.Response:
    headers = {"Authorization": "Bearer t"}
    return requests.post(f"{url}/v1/{place}/versions", data=body, params={"filename": filename, **query}, headers=headers)


def zip_of(folder: Path, **more: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder.parent))
        for name, content in more.items():
            archive.writestr(f"{folder.name}/{name.replace('__', '.')}", content)
    return packed.getvalue()


@pytest.fixture
def bundle(home: Settings) -> Path:
    entry = Catalog(shared()).resolve("models", "infn-structures")
    return storage.fetch(entry["path"], entry["storage_type"], settings=home)


def test_a_model_is_published_with_its_card_and_answers(url: str, bundle: Path) -> None:
    done = send(
        url, "models/mine", zip_of(bundle, README__md="# Mine\nperché".encode()), "mine.zip",
        licence="mit", tag=["infn", "test"], language="it", visibility="public", parent="infn-structures:1",
    )  # fmt: skip
    assert (done.status_code, done.json()["status"], done.json()["version"]) == (201, "published", "1"), done.text
    entry = requests.get(f"{url}/v1/models/mine").json()
    assert (entry["task"], entry["licence"], entry["tags"], entry["languages"]) == ("text-classification", "mit", ["infn", "test"], ["it"])
    version = requests.get(f"{url}{done.headers['Location']}").json()
    assert version["lineage"]["parent"] == {"name": "infn-structures", "version": "1"}
    assert requests.get(f"{url}{done.headers['Location']}/card").content.decode() == "# Mine\nperché"
    assert models.load(ModelRef(name="mine")).version.objective == "text-classification"
    again = send(url, "models/mine", zip_of(bundle, README__md="# Mine\nperché".encode()), "mine.zip")
    assert again.json()["version"] == "1"


def test_a_hugging_face_folder_with_onnx_is_published(url: str, bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    (folder / "onnx").mkdir(parents=True)
    for name in ("tokenizer.json", "config.json"):
        shutil.copy(bundle / name, folder / name)
    shutil.copy(bundle / "model.onnx", folder / "onnx" / "model.onnx")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(folder, "repository")
    done = send(url, "models/theirs", packed.getvalue(), "theirs.tar.gz")
    assert done.status_code == 201, done.text
    assert models.load(ModelRef(name="theirs")).model.bundle.graph.name == "model.onnx"


@pytest.mark.training
def test_a_checkpoint_without_onnx_becomes_a_task_whose_job_exports_it(url: str, home: Settings, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", BertForMaskedLM)
    done = send(
        url, "models/pending", zip_of(checkpoint), "checkpoint.zip", task="masked-lm", licence="mit", visibility="public", owner="ada"
    )
    assert (done.status_code, done.json()["status"]) == (202, "pending"), done.text
    task = Tasks(shared()).get(done.json()["task_id"])
    assert (task["task_status"], task["capability"]) == ("accepted", "model")
    assert (task["owner"], task["asked_by"]) == ("ada", "token")
    assert task["request"]["model_save"] == {"path": "uploads/models/pending", "storage_type": "local", "name": "pending", "licence": "mit"}
    assert storage.exists(task["request"]["model"]["path"], "local", settings=home)
    assert shared().get("tasks", task["task_id"]).body["outbox_pending"]
    assert send(url, "models/pending", zip_of(checkpoint), "checkpoint.zip", task="masked-lm").json() == done.json()
    assert requests.get(f"{url}/v1/models/pending").status_code == 404
    (tmp_path / "event").write_text(json.dumps(shared().get("tasks", task["task_id"]).body["accepted"]))
    environment = {**os.environ, "K_EVENT_PATH": str(tmp_path), "K_EXECUTION_MODE": "batch", "OMP_NUM_THREADS": "1"}
    assert subprocess.run([sys.executable, "-m", "mlaas.training.job"], env=environment, capture_output=True, timeout=240).returncode == 0
    done_task = Tasks(shared()).get(task["task_id"])
    assert done_task["task_status"] == "succeeded", done_task
    assert done_task["result"]["model"]["name"] == "pending"
    entry = requests.get(f"{url}/v1/models/pending").json()
    assert (entry["task"], entry["licence"], entry["visibility"]) == ("masked-lm", "mit", "public")
    assert models.load(ModelRef(name="pending")).version.objective == "masked-lm"


@pytest.mark.parametrize(
    ("body", "filename", "reason"),
    [
        (b"graph", "model.onnx", "an ONNX graph alone is not served"),
        (b"no archive", "model.zip", "damaged"),
        ({"pytorch_model__bin": b"x"}, "model.zip", "may hold code"),
        ({"onnx": b"x"}, "model.zip", "neither a model with an ONNX graph nor a checkpoint"),
        ({"model__onnx": b"not a graph", "tokenizer__json": b"{}", "config__json": b"{}"}, "model.zip", ""),
    ],
)
def test_what_is_no_model_is_refused_with_the_reason(url: str, tmp_path: Path, body: Any, filename: str, reason: str) -> None:
    (tmp_path / "m").mkdir()
    refused = send(url, "models/bad", zip_of(tmp_path / "m", **body) if isinstance(body, dict) else body, filename)
    assert refused.status_code == 422, refused.text
    assert reason in refused.json()["detail"]
    assert refused.json()["remedy"]
    assert str(tmp_path) not in refused.text
    assert requests.get(f"{url}/v1/models/bad", headers={"Authorization": "Bearer t"}).status_code == 404


def test_data_sets_are_published_with_columns_and_a_preview(url: str) -> None:
    parquet = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b", "c"], "year": [2024, None, 2026]}), parquet)
    (json_lines,) = (b'{"text": "a", "tags": ["x"], "score": 1}\n{"text": "' + b"b" * 300 + b'", "tags": [], "score": 0.5}\n',)
    for body, filename, count, columns in (
        (ROWS, "rows.csv", 2, {"text": "string", "label": "string"}),
        (gzip.compress(ROWS), "rows.csv.gz", 2, {"text": "string", "label": "string"}),
        (parquet.getvalue(), "rows.parquet", 3, {"text": "string", "year": "integer"}),
        (json_lines, "rows.jsonl", 2, {"text": "string", "tags": "array", "score": "number"}),
    ):
        done = send(url, f"datasets/{filename.replace('.', '-')}", body, filename, visibility="public")
        assert done.status_code == 201, done.text
        version = requests.get(f"{url}{done.headers['Location']}").json()
        assert version["count"] == count
        assert {one["name"]: one["type"] for one in version["columns"]} == columns
        assert len(version["preview"]) == min(count, 5)
        assert all(len(str(row["text"])) <= 201 for row in version["preview"])
        (file,) = requests.get(f"{url}{version['files_href']}").json()["items"]
        assert requests.get(f"{url}{file['href']}").content == body
    assert send(url, "datasets/rows-csv", ROWS, "rows.csv").json()["version"] == "1"
    assert send(url, "datasets/rows-csv", ROWS + b"INFN Bari,BA\n", "rows.csv").json()["version"] == "2"


@pytest.mark.parametrize(
    ("body", "filename", "reason"),
    [
        (b"", "rows.csv", "empty"),
        (b"a,b\n1\n", "rows.csv", "line 2"),
        (b"text\n", "rows.csv", "no rows"),
        (b"\xff\xfe", "rows.csv", "UTF-8"),
        (b"not parquet", "rows.parquet", "Parquet"),
        (b"hello", "rows.docx", "no data file"),
        (b"hello", "rows.txt", ""),
    ],
)
def test_what_is_no_data_set_is_refused_with_the_reason(url: str, body: bytes, filename: str, reason: str) -> None:
    refused = send(url, "datasets/bad", body, filename)
    assert refused.status_code == 422, refused.text
    assert reason in refused.json()["detail"]
    assert refused.json()["remedy"]


def test_an_upload_that_is_too_large_is_refused_as_it_is_and_as_it_would_be_unpacked(url: str, home: Settings) -> None:
    for body, filename in ((b"a\n" * (5 * 1024**2), "rows.csv"), (gzip.compress(b"a\n" * (5 * 1024**2)), "rows.csv.gz")):
        assert send(url, "datasets/large", body, filename).status_code == 413
    assert send(url, "datasets/large", iter([b"a\n" * 1024**2] * 5), "rows.csv").status_code == 413  # chunked: nobody says how much
    assert not any((home.home / "work").iterdir())


def test_nobody_uploads_without_a_token_nor_an_index_nor_by_a_name_that_leads_out(url: str) -> None:
    assert requests.post(f"{url}/v1/datasets/rows/versions?filename=rows.csv", data=ROWS).status_code == 401
    assert send(url, "indexes/rows", ROWS, "rows.csv").json()["detail"] == "an index is not uploaded: it is built"
    for place, filename in (
        ("datasets/..", "rows.csv"),
        ("datasets/Rows!", "rows.csv"),
        ("datasets/rows", "../rows.csv"),
        ("datasets/rows", ""),
    ):
        assert send(url, place, ROWS, filename).status_code in (404, 422)
    assert send(url, "datasets/rows", ROWS, "rows.csv", parent="nobody:1").status_code == 404
