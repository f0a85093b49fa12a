"""Predictions for a file on a real object store: the exchange is a bucket, so a job that is killed goes on wherever it is started again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from mlaas import batch, events, references, settings, storage
from mlaas.contracts import ClassifyRequest, parse
from mlaas.documents import shared
from mlaas.settings import Settings
from mlaas.storage import s3_client
from mlaas.storage.manifests import sha256_of
from mlaas.tasks import Tasks
from mlaas.testing.s3_server import BUCKET, S3Server

pytestmark = pytest.mark.services
ROWS = 4000


@pytest.fixture
def on_s3(home: Settings, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """A platform whose exchange is a bucket, and whose downloads are this test's own."""
    for name, value in {
        "MLAAS_S3_ENDPOINT": s3_server.endpoint,
        "MLAAS_EXCHANGE": f"s3:{BUCKET}/{tmp_path.name}",
        "MLAAS_CACHE": str(tmp_path / "cache"),
        "MLAAS_BATCH_ROWS": "200",
    }.items():
        monkeypatch.setenv(name, value)
    settings.current.cache_clear()
    return settings.current()


def sent(on_s3: Settings, file: Path) -> dict[str, Any]:
    """Put a file of texts into the exchange; the reference to it."""
    file.write_text("text\n" + "".join(f"INFN Frascati {number}\n" if number % 2 else '""\n' for number in range(ROWS)))
    path, storage_type = references.in_exchange(on_s3, "uploads", "x", file.name)
    storage.put(file, path, storage_type, settings=on_s3)
    return references.refer_to(file, path, storage_type)


def keys(on_s3: Settings, part: str) -> list[str]:
    bucket, _, prefix = on_s3.exchange.removeprefix("s3:").partition("/")
    found = s3_client.client(on_s3).list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/").get("Contents", [])
    return [one["Key"] for one in found if part in one["Key"]]


def test_a_job_that_is_killed_goes_on_from_its_parts_in_the_bucket_on_another_machine(on_s3: Settings, tmp_path: Path) -> None:
    request = {"model": {"name": "infn-structures"}, "predict_input": {"dataset": sent(on_s3, tmp_path / "rows.csv")}}
    event = batch.accept(parse(ClassifyRequest, request), events.new("classify", request), False)
    (tmp_path / "event").write_text(json.dumps(events.to_json(event)))
    tasks, task_id = Tasks(shared()), event["subject"]

    def start(machine: str) -> subprocess.Popen[bytes]:
        own = {"MLAAS_CACHE": str(tmp_path / machine), "K_EVENT_PATH": str(tmp_path / "event")}
        return subprocess.Popen([sys.executable, "-m", "mlaas.batch"], env={**os.environ, **own}, stderr=subprocess.PIPE)

    first = start("first")
    deadline = time.monotonic() + 120
    while len(keys(on_s3, "/part-")) < 5:
        assert time.monotonic() < deadline
        assert first.poll() is None, first.communicate()
    first.kill()
    first.communicate()
    kept = len(keys(on_s3, "/part-"))
    assert 5 <= kept < ROWS // 200
    second = start("second")
    second.communicate(timeout=180)
    task = tasks.get(task_id)
    assert (second.returncode, task["task_status"], task["stats"]["attempts"]) == (0, "succeeded", 2), task.get("error")
    predictions = task["result"]["predictions"]
    assert predictions["path"].startswith(f"{on_s3.exchange.removeprefix('s3:')}/results/{task_id}/")
    place = storage.fetch(predictions["path"], "s3", settings=on_s3)
    assert (place.stat().st_size, sha256_of(place)) == (predictions["size"], predictions["sha256"])
    found = parquet.read_table(place).to_pylist()
    assert [(one["row"], one["label"]) for one in found] == [(number, "LNF" if number % 2 else None) for number in range(ROWS)]
    assert keys(on_s3, ".draft-") == []


def test_a_large_reply_lies_in_the_bucket_and_comes_back_whole(on_s3: Settings) -> None:
    event = events.reply(events.new("classify", {}, id="r"), "classify", "succeeded", {"predictions": ["x" * 1000] * 400})
    fitted = references.fitted(event, on_s3)
    assert fitted["dataref"] == f"s3:{on_s3.exchange.removeprefix('s3:')}/replies/{event['id']}.json"
    assert references.resolved(fitted, on_s3).data == event.data
