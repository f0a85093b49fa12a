"""`mlaas up` with an institute's services instead of the embedded ones: a Kafka, a MongoDB and an S3 store that it did not start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from pymongo import MongoClient

from mlaas import storage
from mlaas.bundles import open_bundle
from mlaas.local.kafka_server import KafkaServer, free_port
from mlaas.settings import Settings
from mlaas.testing.kafka import running_kafka
from mlaas.testing.mongo_server import MongoServer, installed
from mlaas.testing.s3_server import BUCKET, S3Server

pytestmark = [pytest.mark.services, pytest.mark.training]


@pytest.fixture
def kafka() -> Iterator[KafkaServer]:
    with running_kafka() as server:
        yield server


@pytest.fixture
def mongodb(tmp_path: Path) -> Iterator[MongoServer]:
    if not installed():
        pytest.skip("mongo-java-server is not installed: python -m mlaas.testing.mongo_server install")
    with MongoServer(tmp_path / "mongo") as server:
        yield server


@pytest.fixture
def environment(tmp_path: Path, kafka: KafkaServer, mongodb: MongoServer, s3_server: S3Server) -> dict[str, str]:
    """The variables of compose.env, for the servers of this test."""
    return {
        **os.environ,
        "MLAAS_HOME": str(tmp_path / "home"),
        "MLAAS_KAFKA": kafka.bootstrap,
        "MLAAS_DOCUMENTS": mongodb.url,
        "MLAAS_S3_ENDPOINT": s3_server.endpoint,
        "MLAAS_EXCHANGE": f"s3:{BUCKET}/exchange",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture
def mlaas(environment: dict[str, str], tmp_path: Path) -> Callable[..., Any]:
    """The command line; what it prints as JSON, its last line."""

    def run(*arguments: str) -> Any:
        command = [sys.executable, "-m", "mlaas.cli", *arguments, "--json"]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture
def platform(environment: dict[str, str], kafka: KafkaServer) -> Iterator[None]:
    port = free_port()
    environment["MLAAS_URL"] = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlaas.cli", "up", "--kafka", kafka.bootstrap, "--port", str(port), "--json"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert json.loads(process.stdout.readline())["kafka"] == kafka.bootstrap
    yield
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_models_are_trained_indexed_searched_and_downloaded_without_a_file_in_local_storage(
    platform: None, mlaas: Callable[..., Any], environment: dict[str, str], s3_server: S3Server, mongodb: MongoServer, tmp_path: Path
) -> None:
    from mlaas.testing.tiny_checkpoints import write_checkpoint, write_rows

    settings = Settings(home=tmp_path / "mine", s3_endpoint=s3_server.endpoint)
    storage.publish(write_checkpoint(tmp_path / "tiny"), f"{BUCKET}/checkpoints/tiny", "s3", "v1", settings=settings)
    storage.put(write_rows(tmp_path / "rows.jsonl"), f"{BUCKET}/rows.jsonl", "s3", settings=settings)
    checkpoint, rows = ["--model", f"s3:{BUCKET}/checkpoints/tiny"], ["--dataset", f"s3:{BUCKET}/rows.jsonl"]

    mlaas("export", *checkpoint, "--objective", "no-objective", "--save", f"s3:{BUCKET}/models/tiny")
    built = mlaas("index", "--model", "tiny", *rows, "--save", f"s3:{BUCKET}/indexes/rows", "--watch")
    assert built["result"]["index"]["storage_type"] == "s3"
    found = mlaas("search", "--index", "rows", "the old heron")
    assert "heron" in found["results"][0][0]["text"]

    objective = ["--objective", "text-classification", "--epochs", "6", "--learning-rate", "0.003"]
    trained = mlaas("train", *checkpoint, *rows, *objective, "--save", f"s3:{BUCKET}/models/birds", "--watch")
    assert trained["task_status"] == "succeeded"
    for way in ([], ["--kafka"]):
        answer = mlaas("classify", "--model", "birds", *way, "the old heron by the town")
        assert answer["predictions"][0]["label"] == "bird"

    for link in mlaas("catalog", "links", "birds"):
        assert requests.get(link["url"], timeout=10).status_code == 200
    mlaas("catalog", "download", "birds", "--to", "copy")
    assert open_bundle(tmp_path / "copy").digest == trained["result"]["model"]["digest"]

    home = Path(environment["MLAAS_HOME"])
    assert not list(home.glob("documents.sqlite*"))
    assert not (home / "artefacts").exists()
    with MongoClient(mongodb.url) as client:
        assert {one["_id"] for one in client.get_default_database()["tasks"].find()} == {built["task_id"], trained["task_id"]}
