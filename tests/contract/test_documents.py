"""The contract of the document store, held against each implementation."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from mlaas.documents import Documents, connect, mongo
from mlaas.errors import InvalidRequest, Unavailable
from mlaas.testing import mongo_server as mongo_server_


@pytest.fixture(scope="module")
def mongo_server() -> Iterator[str]:
    if not mongo_server_.installed():
        pytest.skip("mongo-java-server is not installed: python -m mlaas.testing.mongo_server install")
    with mongo_server_.running_mongo_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "mongodb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "mongodb":
        return f"{request.getfixturevalue('mongo_server')}-{tmp_path.name[-40:].replace('_', '-')}"
    return f"sqlite:///{tmp_path}/documents.sqlite"


@pytest.fixture
def documents(url: str) -> Iterator[Documents]:
    store = connect(url)
    yield store
    store.close()


def test_a_key_is_taken_once(documents: Documents) -> None:
    assert documents.insert("tasks", "a", {"x": 1})
    assert not documents.insert("tasks", "a", {"x": 2})
    assert documents.get("tasks", "a").body == {"x": 1}


def test_the_same_key_in_another_collection_is_another_document(documents: Documents) -> None:
    assert documents.insert("tasks", "a", {"x": 1})
    assert documents.insert("models", "a", {"x": 2})
    assert documents.get("models", "a").body == {"x": 2}


def test_an_absent_key_gives_nothing(documents: Documents) -> None:
    assert documents.get("tasks", "absent") is None


def test_a_replacement_needs_the_revision_it_read(documents: Documents) -> None:
    documents.insert("tasks", "a", {"x": 1})
    read = documents.get("tasks", "a")
    assert documents.replace("tasks", read, {"x": 2})
    assert not documents.replace("tasks", read, {"x": 3})
    assert documents.get("tasks", "a").body == {"x": 2}


def test_find_matches_fields_newest_first_and_pages_without_gaps(documents: Documents) -> None:
    for number in range(25):
        documents.insert("tasks", f"t{number:02}", {"task_status": "running" if number % 2 else "failed", "stats": {"attempts": number}})
    newest = documents.find("tasks", {}, limit=10)
    assert [one.key for one in newest] == [f"t{number:02}" for number in range(24, 14, -1)]
    seen, before = [], None
    while page := documents.find("tasks", {"task_status": "running"}, limit=5, before=before):
        seen += [one.key for one in page]
        before = page[-1].cursor
    assert seen == [f"t{number:02}" for number in range(23, 0, -2)]
    assert [one.key for one in documents.find("tasks", {"stats.attempts": 7})] == ["t07"]


def test_a_document_can_be_newer_than_another_whatever_the_clock_says(documents: Documents) -> None:
    documents.insert("models", "a", {})
    tomorrow = documents.get("models", "a").created + 24 * 3600 * 10**9
    documents.insert("models", "b", {}, after=tomorrow)
    assert documents.get("models", "b").created > tomorrow
    assert [one.key for one in documents.find("models", {})] == ["b", "a"]


def test_find_matches_true_and_false(documents: Documents) -> None:
    documents.insert("tasks", "a", {"outbox_pending": True})
    documents.insert("tasks", "b", {"outbox_pending": False})
    assert [one.key for one in documents.find("tasks", {"outbox_pending": True})] == ["a"]


def test_documents_survive_a_restart(url: str) -> None:
    first = connect(url)
    first.insert("tasks", "a", {"text": "è così"})
    first.close()
    second = connect(url)
    assert second.get("tasks", "a").body == {"text": "è così"}
    second.close()


def _claim_all(url: str) -> list[str]:
    store, claimed = connect(url), []
    while free := store.find("tasks", {"task_status": "accepted"}, limit=5):
        for stored in free:
            # mongo-java-server may show a document as it is after it matched, so what was read counts, not that it was found.
            if stored.body["task_status"] == "accepted" and store.replace("tasks", stored, {**stored.body, "task_status": "running"}):
                claimed.append(stored.key)
    store.close()
    return claimed


def test_a_hundred_jobs_are_claimed_once_each_by_eight_threads(url: str, documents: Documents) -> None:
    for number in range(100):
        documents.insert("tasks", str(number), {"task_status": "accepted"})
    with ThreadPoolExecutor(8) as pool:
        claims = [key for keys in pool.map(lambda _: _claim_all(url), range(8)) for key in keys]
    assert sorted(claims) == sorted(map(str, range(100)))


def test_jobs_are_claimed_once_each_by_several_processes(url: str, documents: Documents) -> None:
    for number in range(60):
        documents.insert("tasks", str(number), {"task_status": "accepted"})
    with get_context("spawn").Pool(3) as pool:
        claims = [key for keys in pool.map(_claim_all, [url] * 3) for key in keys]
    assert sorted(claims) == sorted(map(str, range(60)))


def test_a_store_that_is_away_is_unavailable_without_its_reason_in_the_text(tmp_path: Path) -> None:
    (tmp_path / "documents.sqlite").mkdir()
    with pytest.raises(Unavailable) as caught:
        connect(f"sqlite:///{tmp_path}/documents.sqlite").get("tasks", "a")
    assert str(tmp_path) not in caught.value.detail
    assert isinstance(caught.value.__cause__, sqlite3.Error)


def test_a_mongodb_that_is_away_is_unavailable_and_its_url_stays_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mongo, "_SELECTION_MS", 200)
    store = connect("mongodb://user:secret@127.0.0.1:1/mlaas")
    with pytest.raises(Unavailable) as caught:
        store.get("tasks", "a")
    store.close()
    assert "secret" not in caught.value.detail


def test_an_unknown_scheme_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match="scheme") as caught:
        connect("redis://localhost")
    assert "sqlite:///path" in caught.value.remedy
