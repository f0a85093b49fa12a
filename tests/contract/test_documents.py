"""The contract of the document store, held against each implementation."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import pytest
from pymongo import MongoClient

from mlaas import documents
from mlaas.documents import INDEXED, Between, Documents, connect, mongo
from mlaas.errors import InvalidRequest, Unavailable
from mlaas.settings import load


@pytest.fixture
def opened(url: str) -> Iterator[Documents]:
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


TIMES = ("2026-01-31T23:59:59.999Z", "2026-02-01T00:00:00.000Z", "2026-02-01T00:00:00.001Z", "2026-03-01T12:00:00.000Z")


@pytest.mark.parametrize(
    ("between", "found"),
    [
        (Between(TIMES[1], TIMES[3]), [2, 1]),
        (Between(low=TIMES[1]), [3, 2, 1]),
        (Between(high=TIMES[1]), [0]),
        (Between("2026-02", "2026-03"), [2, 1]),
        (Between(), [3, 2, 1, 0]),
        (Between("2027"), []),
    ],
)
def test_find_and_count_match_a_range_of_texts_its_low_end_included(documents: Documents, between: Between, found: list[int]) -> None:
    for number, moment in enumerate(TIMES):
        documents.insert("events", str(number), {"time": moment, "type": "a"})
    documents.insert("events", "none", {"time": None, "type": "a"})
    documents.insert("events", "number", {"time": 2026, "type": "a"})
    documents.insert("events", "absent", {"type": "a"})
    assert [one.key for one in documents.find("events", {"time": between})] == [str(number) for number in found]
    assert [one.key for one in documents.find("events", {"time": between, "type": "b"})] == []
    assert documents.count("events", {"time": between, "type": "a"}) == len(found)


def test_find_and_count_match_any_text_of_a_tuple(documents: Documents) -> None:
    for key, owner in (("a", "ada"), ("b", "group:x"), ("c", "eve"), ("d", None)):
        documents.insert("tasks", key, {"owner": owner, "task_status": "running"})
    documents.insert("tasks", "e", {"task_status": "running"})
    assert [one.key for one in documents.find("tasks", {"owner": ("ada", "group:x")})] == ["b", "a"]
    assert documents.count("tasks", {"owner": ("ada", "group:x"), "task_status": "running"}) == 2
    assert documents.count("tasks", {"owner": ("nobody",)}) == 0


def test_count_says_how_many_match_and_zero_where_there_is_no_collection(documents: Documents) -> None:
    for number in range(150):
        documents.insert("tasks", str(number), {"task_status": "running" if number % 3 else "failed"})
    assert documents.count("tasks", {"task_status": "failed"}) == 50
    assert documents.count("tasks", {}) == 150
    assert documents.count("ledger", {"status": "parked"}) == 0


def test_a_page_goes_on_after_documents_that_came_meanwhile(documents: Documents) -> None:
    for number in range(6):
        documents.insert("events", f"e{number}", {"type": "a"})
    first = documents.find("events", {"type": "a"}, limit=3)
    documents.insert("events", "later", {"type": "a"})
    second = documents.find("events", {"type": "a"}, limit=10, before=first[-1].cursor)
    assert [one.key for one in (*first, *second)] == [f"e{number}" for number in range(5, -1, -1)]


def test_of_eight_replacements_at_once_of_one_document_one_is_made(url: str, opened: Documents) -> None:
    opened.insert("tasks", "a", {"x": 0})
    read = opened.get("tasks", "a")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: opened.replace("tasks", read, {"x": number}), range(1, 9)))
    assert made.count(True) == 1
    assert opened.get("tasks", "a").body == {"x": made.index(True) + 1}
    assert opened.get("tasks", "a").revision == read.revision + 1


def test_of_eight_insertions_at_once_of_one_key_one_is_made(documents: Documents) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: documents.insert("tasks", "a", {"x": number}), range(8)))
    assert made.count(True) == 1
    assert documents.get("tasks", "a").body == {"x": made.index(True)}


def test_an_absent_document_is_not_replaced(documents: Documents) -> None:
    documents.insert("tasks", "a", {"x": 1})
    assert not documents.replace("models", documents.get("tasks", "a"), {"x": 2})
    assert documents.get("models", "a") is None


def test_sqlite_finds_every_indexed_field_through_its_index(tmp_path: Path) -> None:
    store = connect(f"sqlite:///{tmp_path}/documents.sqlite")
    store.get("tasks", "a")
    store.close()
    connection = sqlite3.connect(tmp_path / "documents.sqlite")
    for collection, fields in INDEXED.items():
        for field in fields:
            match = f"collection = ? AND json_extract(body, '$.{field}') = ?"
            for query in (f"SELECT key FROM documents WHERE {match} ORDER BY created DESC, key DESC LIMIT 9",
                          f"SELECT count(*) FROM documents WHERE {match} AND created > 0"):  # fmt: skip
                plan = connection.execute(f"EXPLAIN QUERY PLAN {query}", (collection, "x")).fetchall()
                assert [row[3].split("(")[0] for row in plan] == [f"SEARCH documents USING INDEX by_{field} "]
    connection.close()


def test_mongodb_has_an_index_for_every_indexed_field_from_the_first_use_on(mongo_server: str) -> None:
    url = f"{mongo_server}-indexes"
    store = connect(url)
    store.get("tasks", "a")
    store.close()
    with MongoClient(url) as client:
        for collection, fields in INDEXED.items():
            made = {
                tuple(name for name, _ in index["key"]) for index in client.get_default_database()[collection].index_information().values()
            }
            assert made >= {("created", "_id"), *((f"state.body.{field}", "created") for field in fields)}


def test_documents_are_there_for_the_next_process(url: str) -> None:
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


def test_a_hundred_jobs_are_claimed_once_each_by_eight_threads(url: str, opened: Documents) -> None:
    for number in range(100):
        opened.insert("tasks", str(number), {"task_status": "accepted"})
    with ThreadPoolExecutor(8) as pool:
        claims = [key for keys in pool.map(lambda _: _claim_all(url), range(8)) for key in keys]
    assert sorted(claims) == sorted(map(str, range(100)))


def test_jobs_are_claimed_once_each_by_several_processes(url: str, opened: Documents) -> None:
    for number in range(60):
        opened.insert("tasks", str(number), {"task_status": "accepted"})
    with get_context("spawn").Pool(3) as pool:
        claims = [key for keys in pool.map(_claim_all, [url] * 3) for key in keys]
    assert sorted(claims) == sorted(map(str, range(60)))


def test_threads_that_ask_for_the_process_store_at_once_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(url: str) -> Documents:
        time.sleep(0.05)
        return connect(url)

    monkeypatch.setattr(documents, "_shared", lru_cache(maxsize=4)(slowly))
    settings = load({"MLAAS_DOCUMENTS": f"sqlite:///{tmp_path}/one.sqlite"})
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: documents.shared(settings), range(8)))
    assert len(found) == 1
    found.pop().close()


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
