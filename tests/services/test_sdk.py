"""The SDK against a whole platform on a real Kafka: the same calls by events, a training that is followed, and the notebook of the docs."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

from mlaas import errors, samples, settings
from mlaas.client import AsyncClient, Client, TaskFailed
from mlaas.local.kafka_server import free_port, install
from mlaas.local.platform import Platform
from mlaas.settings import Settings
from mlaas.testing.homes import tiny_home

pytestmark = [pytest.mark.services, pytest.mark.training]

ROOT = Path(__file__).parents[2]
TRAIN = {
    "model": {"architecture": "tfidf-linear", "objective": "text-classification"},
    "dataset": {"path": "samples/affiliations.tsv", "text_column": "affiliation", "label_column": "label"},
    "model_save": {"path": "models/followed"},
}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """`mlaas up` with tiny models, and some hundred affiliations to train on."""
    try:
        install()
    except errors.MlaasError as error:
        pytest.skip(f"Apache Kafka's jars cannot be had: {error.detail}")
    folder = tmp_path_factory.mktemp("sdk")
    configured = replace(tiny_home(folder), token="secret-of-the-test")
    samples.write(configured.artefacts / "samples", affiliations=300)
    with Platform(configured, port=free_port(), kafka_port=free_port()) as platform:
        yield platform
    gc.collect()


@pytest.fixture
def configured(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """This process, and the kernel of a notebook, find the platform by the environment."""
    where = {"home": str(platform._settings.home), "url": platform.url, "kafka": platform.bootstrap, "token": "secret-of-the-test"}
    for name, value in settings.named(**where).items():
        monkeypatch.setenv(name, value)
    settings.current.cache_clear()
    yield settings.current()
    settings.current.cache_clear()


@pytest.fixture
def by_kafka(configured: Settings) -> Iterator[Client]:
    with Client.over_kafka() as client:
        yield client


def test_the_same_calls_give_the_same_results_by_kafka_and_by_http(by_kafka: Client) -> None:
    series = pd.Series(["INFN Frascati", "INFN CNAF"] * 3)
    with Client() as by_http:
        assert by_kafka.classify(["INFN Frascati"], model="infn-structures") == by_http.classify(["INFN Frascati"], model="infn-structures")
        pd.testing.assert_frame_equal(
            by_kafka.search(series, index="abstracts", top_k=2), by_http.search(series, index="abstracts", top_k=2)
        )
        assert by_kafka.models.list(sort="name") == by_http.models.list(sort="name"), "the catalog is asked by HTTP by both"
        for client in (by_kafka, by_http):
            with pytest.raises(errors.NotFound) as refused:
                client.classify("x", model="nobody")
            assert (refused.value.field, bool(refused.value.remedy)) == ("model.name", True)


def test_calls_at_once_share_one_reader_and_each_gets_its_own_answer(by_kafka: Client) -> None:
    texts = ["INFN Frascati", "INFN CNAF"] * 30
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda text: by_kafka.classify(text, model="infn-structures").predictions[0].label, texts))
    assert found == ["LNF", "CNAF"] * 30
    streamed = by_kafka.classify.stream(iter(texts), model="infn-structures", batch_size=7)
    assert [one.label for one in streamed] == ["LNF", "CNAF"] * 30


def test_calls_by_kafka_can_be_awaited(configured: Settings) -> None:
    async def use() -> list[str | None]:
        async with AsyncClient.over_kafka() as client:
            results = await asyncio.gather(
                *(client.classify(text, model="infn-structures") for text in ["INFN Frascati", "INFN CNAF"] * 10)
            )
            with pytest.raises(errors.NotFound):
                await client.search("x", index="nobody")
            return [result.predictions[0].label for result in results]

    assert asyncio.run(use()) == ["LNF", "CNAF"] * 10


def test_an_answer_that_is_larger_than_an_event_arrives_whole(by_kafka: Client, configured: Settings) -> None:
    result = by_kafka.embed([f"text {number}" for number in range(2500)], model="minilm")
    assert (len(result.vectors), len(result.vectors[0])) == (2500, 16)
    assert list((configured.artefacts / "exchange" / "replies").glob("*.json"))


def test_no_reply_in_time_is_said(by_kafka: Client) -> None:
    object.__setattr__(by_kafka._link, "timeout", 0.001)
    with pytest.raises(errors.Unavailable, match="no reply came"):
        by_kafka.classify("INFN Frascati", model="infn-structures")


def test_a_training_by_kafka_is_followed_by_its_events_to_its_model(by_kafka: Client) -> None:
    task = by_kafka.train(TRAIN, idempotency_key="sdk-by-kafka")
    assert by_kafka.train(TRAIN, idempotency_key="sdk-by-kafka").id == task.id, "the same key starts nothing twice"
    assert task.wait(timeout=120).data.evaluation["accuracy"] > 0.3
    assert by_kafka.classify("INFN Frascati", model=task.model).model.name == "followed"
    found = by_kafka.events.list(task=task.id, type="train.succeeded")
    assert [one.event["data"]["task_id"] for one in found] == [task.id]
    assert by_kafka.task(task.id).result()["model"]["name"] == "followed"
    with pytest.raises(errors.NotFound):
        by_kafka.train({**TRAIN, "dataset": {"path": "samples/nothing.tsv"}})


def test_an_index_that_was_built_is_searched_by_its_task(by_kafka: Client) -> None:
    columns = {"page_content_column": "abstract", "id_column": "id"}
    task = by_kafka.index(
        {
            "model": {"name": "minilm"},
            "dataset": {"path": "samples/abstracts.jsonl", "loader_kwargs": columns},
            "vector_store_save": {"path": "indexes/built"},
        }
    )
    assert task.wait(timeout=120).index.revision == "1"
    assert by_kafka.search("neutrinos", index=task.index, top_k=1).index.name == "built"
    with pytest.raises(errors.InvalidRequest, match="made no model"):
        _ = task.model


def test_a_task_that_fails_says_why(by_kafka: Client, configured: Settings) -> None:
    (configured.artefacts / "one-class.tsv").write_text("text\tlabel\n" + "a\tb\n" * 3)
    task = by_kafka.train({**TRAIN, "dataset": {"path": "one-class.tsv"}})
    with pytest.raises(TaskFailed) as failed:
        task.wait(timeout=120)
    assert (task.status, failed.value.task.task_id) == ("failed", task.id)
    assert failed.value.detail


def test_the_notebook_of_the_docs_runs(configured: Settings) -> None:
    notebook = nbformat.read(ROOT / "docs" / "sdk.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are not kept"
    NotebookClient(notebook, timeout=180, kernel_name="python3", resources={"metadata": {"path": str(ROOT / "docs")}}).execute()
    shown = [
        "\n".join(str(output.get("data", {}).get("text/plain", output.get("text", ""))) for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]
    assert "physics-lm" in shown[0]
    assert ("LNF" in shown[1], "NaN" in shown[1]) == (True, True)
    assert "CNAF" in shown[2]
    assert "syn-2" in shown[4]
    assert "100% train succeeded" in shown[5], "the progress is a line that has changed to this"
    assert "'accuracy': " in shown[6]
