"""Index builds that update the latest version, in this process: what is published, shared, and not lost when two happen at once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlaas import events, indexing, jobs, models, storage
from mlaas.catalog import Catalog
from mlaas.contracts import IndexRequest, VectorStoreRef, parse
from mlaas.documents import shared
from mlaas.errors import InvalidRequest, NotFound
from mlaas.settings import Settings
from mlaas.tasks import Ownership, Tasks
from mlaas.testing.homes import ABSTRACTS

COLUMNS = {"page_content_column": "abstract", "id_column": "id"}
SAVE = {"path": "indexes/updated"}
UPDATE: dict[str, Any] = {
    "model": {"name": "minilm"},
    "dataset": {"path": "more.jsonl", "loader_kwargs": COLUMNS},
    "vector_store_save": SAVE,
    "update": {"delete": ["syn-1"]},
}
BUILD = {"model": {"name": "minilm"}, "dataset": {"path": "abstracts.jsonl", "loader_kwargs": COLUMNS}, "vector_store_save": SAVE}


def write(home: Settings, name: str, rows: list[tuple[str, str]]) -> None:
    (home.artefacts / name).write_text("".join(json.dumps({"id": key, "abstract": text}) + "\n" for key, text in rows))


def accepted(request: dict[str, Any]) -> str:
    return str(indexing.accept(parse(IndexRequest, request), events.new("index", request), False)["subject"])


def job(task_id: str, home: Settings) -> jobs.Job:
    run = Tasks(shared()).begin(task_id)
    assert run
    return jobs.Job(run, Tasks(shared()), home)


def built(request: dict[str, Any], home: Settings) -> dict[str, Any]:
    index: dict[str, Any] = indexing.build(job(accepted(request), home))["result"]["index"]
    return index


def held(version: str | None = None) -> set[str]:
    """The ids in a version of the index, the latest by default."""
    entry = Catalog(shared()).resolve("indexes", "updated", revision=version)
    store = models.load_store(VectorStoreRef(path=entry["path"])).store
    return {
        row[0]
        for segment in store.segments
        for row in segment.connection().execute("SELECT id FROM documents")
        if segment.row_of(row[0]) is not None
    }


@pytest.fixture
def first(home: Settings) -> dict[str, Any]:
    """The first version of the index."""
    write(home, "abstracts.jsonl", [(key, text) for key, text, _ in ABSTRACTS])
    write(home, "more.jsonl", [("syn-9", "the neutrino has mass")])
    return built(BUILD, home)


def test_an_update_publishes_a_new_version_that_shares_what_stays(home: Settings, first: dict[str, Any]) -> None:
    second = built(UPDATE, home)
    assert (second["version"], second["count"]) == (str(int(first["version"]) + 1), 3)
    assert held() == {"syn-2", "syn-3", "syn-9"}
    assert held(first["version"]) == {"syn-1", "syn-2", "syn-3"}
    places = [storage.fetch(one["path"], "local", settings=home) for one in (first, second)]
    assert len({(place / "index.faiss").stat().st_ino for place in places}) == 1


def test_the_same_update_again_publishes_nothing(home: Settings, first: dict[str, Any]) -> None:
    assert built(UPDATE, home) == built(UPDATE, home)


def test_an_update_that_only_removes_needs_no_data_set(home: Settings, first: dict[str, Any]) -> None:
    built({name: value for name, value in UPDATE.items() if name != "dataset"}, home)
    assert held() == {"syn-2", "syn-3"}


def test_an_update_that_is_overtaken_is_made_again_from_what_overtook_it(
    home: Settings, first: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home, "others.jsonl", [("syn-8", "gravity")])
    other = {**UPDATE, "dataset": {**UPDATE["dataset"], "path": "others.jsonl"}, "update": {"delete": ["syn-2"]}}
    late = job(accepted(UPDATE), home)
    publish, waiting = storage.publish, [other]

    def interrupted(*args: Any, **options: Any) -> str:
        if waiting:
            built(waiting.pop(), home)
        return publish(*args, **options)

    monkeypatch.setattr(storage, "publish", interrupted)
    index = indexing.build(late)["result"]["index"]
    assert int(index["version"]) == int(first["version"]) + 2
    assert held() == {"syn-3", "syn-8", "syn-9"}


def test_an_index_that_was_updated_follows_its_model_with_the_documents_that_it_holds(home: Settings, first: dict[str, Any]) -> None:
    built(UPDATE, home)
    write(home, "more.jsonl", [])
    trained = events.new("train", {"task_id": "t", "request": {}, "result": {"model": {"name": "minilm", "version": "2"}}})
    indexing.follow(trained)
    tasks = Tasks(shared())
    requests = [event.data["request"] for _, event in tasks.owed()]
    (again,) = [one for one in requests if one.get("vector_store_save", {}).get("path") == SAVE["path"]]
    assert again["update"] == {}
    assert "dataset" not in again
    assert built(again, home)["count"] == 3


def test_a_build_after_a_training_is_whose_that_was_and_one_that_follows_the_model_whose_its_index_is(
    home: Settings, first: dict[str, Any]
) -> None:
    tasks, catalog = Tasks(shared()), Catalog(shared())
    catalog.entry("indexes", first["name"])
    catalog.entries.change("indexes", first["name"], {"owner": "bob"})
    training = tasks.accept("train", {}, events.new("train", {}), publish=False, ownership=Ownership("group:physics", "ada"))
    save = {"path": "indexes/asked-for", "storage_type": "local"}
    asked = {"index_after": [{"dataset": {"path": "some.jsonl"}, "vector_store_save": save}]}
    result = {"model": {"name": "minilm", "version": "2"}}
    indexing.follow(events.new("train", {"task_id": training["subject"], "request": asked, "result": result}))
    whose = {
        one["request"]["vector_store_save"]["path"]: (one.get("owner"), one.get("asked_by"))
        for one in tasks.find(status="accepted")[0]
        if "vector_store_save" in one["request"]
    }
    assert whose[save["path"]] == ("group:physics", "ada")
    assert whose[SAVE["path"]] == ("bob", None)


@pytest.mark.parametrize(
    ("change", "error", "field"),
    [
        ({"update": None, "dataset": None}, InvalidRequest, "$"),
        ({"dataset": {"path": "more.jsonl", "loader_kwargs": {"page_content_column": "abstract"}}}, InvalidRequest, "$"),
        ({"update": {"delete": []}}, InvalidRequest, "update.delete"),
        ({"update": {"remove": ["1"]}}, InvalidRequest, "update.remove"),
        ({"vector_store_save": {"path": "indexes/absent"}}, NotFound, "vector_store_save"),
    ],
)
def test_an_update_that_could_not_work_is_refused_before_it_is_accepted(
    home: Settings, first: dict[str, Any], change: dict[str, Any], error: type[Exception], field: str
) -> None:
    with pytest.raises(error) as caught:
        accepted({name: value for name, value in {**UPDATE, **change}.items() if value is not None})
    assert caught.value.field == field  # type: ignore[attr-defined]


def test_compaction_publishes_one_segment(home: Settings, first: dict[str, Any]) -> None:
    built(UPDATE, home)
    compacted = built({**{name: UPDATE[name] for name in ("model", "vector_store_save")}, "update": {"compact": True}}, home)
    assert len(models.load_store(VectorStoreRef(path=compacted["path"])).store.segments) == 1
    assert held() == {"syn-2", "syn-3", "syn-9"}
