"""The client against the real functions over HTTP: what it gives, what it raises, and what it does not start twice."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from mlaas import errors, events, settings
from mlaas.catalog import Catalog
from mlaas.client import AsyncClient, Client, Retries, StreamBroken, TaskFailed, Unreachable
from mlaas.client.steps import Pause
from mlaas.documents import shared
from mlaas.journal import Journal
from mlaas.settings import Settings
from mlaas.tasks import Tasks
from mlaas.testing.toxic_proxy import ToxicProxy

TRAIN = {
    "model": {"path": "checkpoints/tiny", "objective": "text-classification"},
    "dataset": {"path": "affiliations.tsv", "text_column": "affiliation"},
    "model_save": {"path": "models/birds"},
}
QUICK = Retries(times=3, first=0.01)


@pytest.fixture
def client(gateway: str) -> Iterator[Client]:
    with Client(gateway, retries=QUICK) as client:
        yield client


@pytest.fixture
def proxy(gateway: str) -> Iterator[ToxicProxy]:
    """Between the client and the platform."""
    with ToxicProxy(urlsplit(gateway).port or 0) as proxy:
        yield proxy


def through(proxy: ToxicProxy, **options: Any) -> Client:
    return Client(f"http://127.0.0.1:{proxy.port}", **{"retries": QUICK, **options})


def test_results_are_the_contracts_models(client: Client) -> None:
    result = client.classify(["INFN Frascati", "INFN CNAF"], model="infn-structures", top_k=2)
    assert [one.label for one in result.predictions] == ["LNF", "CNAF"]
    assert [len(one.scores) for one in result.predictions] == [2, 2]
    assert (result.model.name, result.model.version) == ("infn-structures", "1")
    assert client.fill_mask("the [MASK] boson", model="physics-lm", top_k=3).predictions[0].masks[0][0].probability > 0
    found = client.search("higgs", index="abstracts", top_k=2, filter={"field": ["hep-ex", "hep-ph"]})
    assert {one.metadata["field"] for one in found.results[0]} == {"hep-ex", "hep-ph"}
    assert client.embed("dark matter", model="minilm").dimension == 16
    assert client.ner("the higgs boson", model="physics-ner").model.name == "physics-ner"
    assert client.answer("Where is LNF?", "LNF is in Frascati.", model="laboratories").predictions[0].score > 0
    assert client.generate("dark matter", model="physics-writer", max_new_tokens=2).predictions[0].tokens <= 2


def test_nothing_above_a_threshold_is_a_result_and_no_error(client: Client) -> None:
    one = client.classify("INFN Frascati", model="infn-structures", score_threshold=1.0).predictions[0]
    assert (one.label, one.score, one.scores) == (None, None, [])


def test_a_refusal_is_the_platforms_exception_with_field_and_remedy(client: Client) -> None:
    with pytest.raises(errors.NotFound) as refused:
        client.classify("x", model="nobody")
    assert refused.value.field == "model.name"
    assert refused.value.remedy
    with pytest.raises(errors.InvalidRequest) as refused_here:
        client.classify("x", model="infn-structures", top_k=0)
    assert refused_here.value.field == "top_k"
    with pytest.raises(errors.InvalidRequest, match="masked-lm"):
        client.classify("x", model="physics-lm")
    with pytest.raises(errors.Unauthenticated):
        Client(str(client._link.url), token="wrong").models.list()


def test_texts_without_end_are_streamed_in_order(client: Client) -> None:
    texts = ["INFN Frascati", "INFN CNAF"] * 45
    labels = [one.label for one in client.classify.stream(iter(texts), model="infn-structures", batch_size=8, in_flight=3)]
    assert labels == ["LNF", "CNAF"] * 45
    with pytest.raises(StreamBroken) as broken:
        list(client.classify.stream(["a", "b", "x" * 200_000, "c"], model="infn-structures"))
    assert (broken.value.row, broken.value.field) == (2, "texts.2")


def test_an_answer_that_is_lost_is_asked_for_again(proxy: ToxicProxy) -> None:
    with through(proxy) as client:
        proxy.swallow(2)
        assert client.classify("INFN Frascati", model="infn-structures").predictions[0].label == "LNF"
        proxy.swallow(100)
        with pytest.raises(Unreachable):
            client.classify("INFN Frascati", model="infn-structures")
    assert proxy.swallowed == 2 + 4


def test_a_training_whose_answer_is_lost_is_started_once(proxy: ToxicProxy) -> None:
    with through(proxy) as client:
        proxy.swallow(2)
        task = client.train(TRAIN)
        assert proxy.swallowed == 2
        assert [one["task_id"] for one in Tasks(shared()).find()[0]] == [task.id]
        assert client.train(TRAIN).id != task.id, "asked for again, it is another training"
        assert client.train(TRAIN, idempotency_key="mine").id == client.train(TRAIN, idempotency_key="mine").id


def test_an_upload_whose_answer_is_lost_is_one_version(proxy: ToxicProxy, home: Settings, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\nINFN Pisa,PI\n")
    with through(proxy) as client:
        proxy.swallow(1)
        done = client.datasets.upload("rows", rows, tags=["infn"], licence="cc0-1.0")
        assert (proxy.swallowed, done.status, done.version) == (1, "published", "1")
        assert [one.version for one in client.datasets.versions("rows")] == ["1"]
        assert client.datasets.version("rows").count == 1


def test_a_rollback_whose_answer_is_lost_goes_back_one_step(proxy: ToxicProxy, home: Settings) -> None:
    catalog = Catalog(shared())
    for digest in ("d1", "d2", "d3"):
        catalog.publish("models", "birds", digest, {"objective": "text-classification"})
    with through(proxy) as client:
        for version in (1, 2, 3):
            client.models.alias("birds", "production", version)
        send = client._http.send

        def lose_the_answer(request: Any) -> Any:
            if request.url.endswith("/rollback") and not proxy.swallowed:
                proxy.swallow(1)
            return send(request)

        client._http.send = lose_the_answer  # type: ignore[method-assign]
        assert client.models.rollback("birds", "production").version == "2"
        assert proxy.swallowed == 1


def test_a_platform_that_is_away_is_said_with_what_to_do(gateway: str) -> None:
    with ToxicProxy(1) as proxy:
        proxy.refuse()
        with through(proxy) as client, pytest.raises(Unreachable, match="no platform answers at") as away:
            client.classify("x", model="infn-structures")
    assert "mlaas up" in (away.value.remedy or "")


def test_silence_ends_after_the_timeout(proxy: ToxicProxy) -> None:
    with through(proxy, timeout=0.4) as client:
        proxy.black_hole()
        with pytest.raises(Unreachable, match="did not answer within"):
            client.classify("x", model="infn-structures")
        proxy.heal()


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1", "http://"])
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(errors.InvalidRequest) as refused:
        Client(url)
    assert refused.value.field == "url"


def test_a_task_is_followed_found_again_and_cancelled(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    task = client.train(TRAIN)
    assert task.status == "accepted"
    with pytest.raises(errors.Unavailable, match="has not ended") as waited:
        task.wait(timeout=0.3)
    assert task.id in (waited.value.remedy or "")
    run = Tasks(shared()).begin(task.id)
    assert run
    Tasks(shared()).report(run, progress={"phase": "train", "percent": 42.0})
    assert task.refresh().data.progress.percent == 42.0
    Tasks(shared()).finish(run, "succeeded", result={"model": {"name": "birds", "version": "3"}})
    again = client.task(task.id)
    assert again.wait(progress=True).result() == {"model": {"name": "birds", "version": "3"}}
    assert (again.model.name, again.model.revision) == ("birds", "3")
    assert "train succeeded" in capsys.readouterr().err
    assert [one.id for one in client.tasks(status="succeeded")] == [task.id]
    with pytest.raises(errors.InvalidRequest, match="has ended"):
        again.cancel()
    other = client.train(TRAIN)
    assert other.cancel().cancel().status == "cancelled"
    with pytest.raises(TaskFailed, match="cancelled") as failed:
        other.wait()
    assert failed.value.task.task_id == other.id
    with pytest.raises(errors.NotFound):
        client.task("nobody")


def test_ctrl_c_leaves_the_task_running_and_says_how_to_come_back(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    task = client.train(TRAIN)

    def interrupted(step: Any) -> Any:
        raise KeyboardInterrupt

    client.perform = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        task.wait(progress=True)
    said = capsys.readouterr().err
    assert f"client.task('{task.id}').wait(progress=True)" in said
    assert f"mlaas tasks show {task.id}" in said
    assert Tasks(shared()).get(task.id)["task_status"] == "accepted"


def test_the_catalog_is_read_and_changed(client: Client, tmp_path: Path) -> None:
    assert {one.name for one in client.models.list()} >= {"minilm", "physics-lm"}
    assert [one.name for one in client.models.list("physics", task="masked-lm")] == ["physics-lm"]
    assert len(client.models.list(limit=2)) == 2
    assert client.models.edit("minilm", tags=["physics"], visibility="public", card="# MiniLM").tags == ["physics"]
    assert client.models.card("minilm").startswith("# MiniLM")
    client.models.alias("minilm", "production", 1)
    assert client.models.version("minilm", alias="production").version == "1"
    assert [one.alias for one in client.models.aliases("minilm")] == ["production"]
    with pytest.raises(errors.Conflict) as needed:
        client.models.delete("minilm", 1)
    assert needed.value.dependants
    client.models.unalias("minilm", "production")
    assert client.models.get("minilm").aliases == {}
    client.models.delete("physics-writer", 1)
    with pytest.raises(errors.NotFound):
        client.models.version("physics-writer")
    assert client.indexes.version("abstracts").count == 3
    assert client.events.list(type="train") == []


def test_events_are_watched_as_they_come_and_those_before_are_not(client: Client, gateway: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlaas.client.journal.EACH_SECONDS", 0.05)

    def known(name: str) -> None:
        event = events.build(events.event_type("train", "progressed"), "/mlaas/train", {}, id=name)
        Journal(shared()).keep("some-task", event)

    async def awaited() -> list[str]:
        async with AsyncClient(gateway) as other:
            return [one.id async for one in other.events.watch(type="train", seconds=0.6)]

    known("before")
    for watch in (lambda: [one.id for one in client.events.watch(task="some-task", seconds=0.6)], lambda: asyncio.run(awaited())):
        number = len(client.events.list(task="some-task"))
        timers = [threading.Timer(0.2 + 0.1 * n, known, [f"e-{number + n}"]) for n in range(2)]
        for timer in timers:
            timer.start()
        assert watch() == [f"e-{number}", f"e-{number + 1}"]
    found = client.events.watch(seconds=0.3)
    monkeypatch.setattr("mlaas.client.journal.EACH_SECONDS", 0.3)
    burst = threading.Timer(0.1, lambda: [known(f"b-{n}") for n in range(130)])
    burst.start()
    client.perform = lambda step, perform=client.perform: burst.join() if isinstance(step, Pause) else perform(step)  # type: ignore[method-assign]
    assert [one.id for one in found] == [f"b-{n}" for n in range(130)], "more than a page of them at once"


def test_files_are_downloaded_and_what_did_not_arrive_whole_is_not_there(proxy: ToxicProxy, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("text\n" + "INFN Sezione di Pisa\n" * 20_000)
    with through(proxy, timeout=5) as client:
        client.datasets.upload("rows", rows)
        folder = client.models.download("minilm", tmp_path / "minilm")
        assert {path.name for path in folder.iterdir()} == {one.name for one in client.models.files("minilm").items}
        with pytest.raises(errors.InvalidRequest, match="no empty folder"):
            client.models.download("minilm", folder)
        proxy.flip(200_000)
        with pytest.raises(errors.Unavailable, match="did not arrive"):
            client.datasets.download("rows", tmp_path / "spoilt")
        assert proxy.flipped
        begins, send = [], client._http.send

        def noted(request: Any) -> Any:
            begins.append(int(request.headers.get("Range", "bytes=0-")[6:-1]))
            return send(request)

        client._http.send = noted  # type: ignore[method-assign]
        proxy.rate = 400_000
        cut = threading.Timer(0.6, proxy.cut)
        cut.start()
        whole = client.datasets.download("rows", tmp_path / "whole")
        cut.join()
        assert (whole / "rows.csv").read_bytes() == rows.read_bytes()
        assert any(begun > 0 for begun in begins), "it went on where it was cut"
        assert not [path.name for path in tmp_path.iterdir() if path.name.endswith(".partial")]


def test_the_same_calls_can_be_awaited_and_many_at_once(gateway: str, tmp_path: Path) -> None:
    async def use() -> None:
        async with AsyncClient(gateway, retries=QUICK) as client:
            results = await asyncio.gather(*(client.classify(["INFN Frascati"], model="infn-structures") for _ in range(20)))
            assert {result.predictions[0].label for result in results} == {"LNF"}
            found = client.classify.stream((text for text in ["INFN CNAF"] * 50), model="infn-structures", batch_size=8)
            assert [one.label async for one in found] == ["CNAF"] * 50
            task = await client.train(TRAIN)
            assert (await task.refresh()).status == "accepted"
            assert (await task.cancel()).status == "cancelled"
            with pytest.raises(TaskFailed):
                await task.wait(progress=True)
            assert len(await client.models.list()) == 6
            folder = await client.models.download("minilm", tmp_path / "minilm")
            assert (folder / "model.onnx").stat().st_size > 0
            (tmp_path / "rows.csv").write_text("text\na\n")
            assert (await client.datasets.upload("rows", tmp_path / "rows.csv")).version == "1"
            with pytest.raises(errors.NotFound):
                await client.search("x", index="nobody")

    asyncio.run(use())


@pytest.mark.parametrize(("blocking", "awaited"), [(Client, AsyncClient)])
def test_both_clients_have_the_same_calls_with_the_same_arguments(blocking: Any, awaited: Any, gateway: str) -> None:
    one, other = blocking(gateway), awaited(gateway)
    for mine, its in ((one, other), (one.models, other.models), (one.events, other.events)):
        names = {name for name in dir(mine) if not name.startswith("_")}
        assert names == {name for name in dir(its) if not name.startswith("_")}
        for name in names:
            if callable(getattr(mine, name)) and name not in ("perform", "over_kafka"):
                parameters = [str(one) for one in inspect.signature(getattr(mine, name)).parameters.values()]
                assert parameters == [str(one) for one in inspect.signature(getattr(its, name)).parameters.values()], name
    one.close()
    asyncio.run(other.close())


def test_the_token_of_this_machine_is_found_and_sent_to_no_other(home: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLAAS_HOME", str(tmp_path))
    settings.current.cache_clear()
    (tmp_path / "token").write_text("of-this-machine\n")
    for url, token in (("http://127.0.0.1:8080", "of-this-machine"), ("http://mlaas.example.org", None)):
        with Client(url) as client:
            assert client._link.token == token
            assert "of-this-machine" not in repr(client._link)


def test_functions_with_addresses_of_their_own_are_found() -> None:
    with Client("http://{function}.mlaas.example.org") as client:
        assert client._link.request("POST", "fill_mask").url == "http://fill-mask.mlaas.example.org"
        assert client._link.request("GET", "catalog", "v1", "models").url == "http://catalog.mlaas.example.org/v1/models"
