"""What the catalog promises, held against each document store."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlaas.catalog import Catalog, aliases, usage
from mlaas.catalog.listing import Query, search
from mlaas.documents import Documents
from mlaas.errors import Conflict, InvalidRequest, NotFound, Outdated

CARD = {"figures": {"licence": {"id": "apache-2.0"}, "variants": [{"variant": "fp32"}, {"variant": "int8"}]}}


@pytest.fixture
def catalog(documents: Documents) -> Catalog:
    return Catalog(documents)


def names(catalog: Catalog, kind="models", **query) -> list[str]:
    return [one.entry.name for one in search(catalog.documents, kind, Query(**query)).found]


def test_an_entry_says_what_its_latest_version_says(catalog: Catalog) -> None:
    catalog.publish("models", "m", "d1", {"objective": "masked-lm"}, about={"owner": "ada", "visibility": "public", "tags": ["physics"]})
    catalog.publish("models", "m", "d2", {"objective": "text-classification", "card": CARD}, about={"owner": "eve"})
    entry = catalog.entry("models", "m")
    assert (entry.owner, entry.visibility, entry.tags) == ("ada", "public", ("physics",))
    assert (entry.task, entry.licence, entry.precisions, entry.latest) == ("text-classification", "apache-2.0", ("fp32", "int8"), "2")


def test_an_entry_is_changed_by_whoever_read_its_last_revision(catalog: Catalog) -> None:
    catalog.publish("models", "m", "d1", {})
    read = catalog.entry("models", "m")
    changed = catalog.entries.change("models", "m", {"description": "birds"}, if_revision=read.revision)
    assert catalog.entry("models", "m") == changed
    with pytest.raises(Outdated):
        catalog.entries.change("models", "m", {"description": "bees"}, if_revision=read.revision)
    assert catalog.entry("models", "m").description == "birds"


def test_what_was_published_before_there_were_entries_is_found(catalog: Catalog) -> None:
    for number, digest in enumerate(("d1", "d2"), 1):
        body = {
            "name": "old",
            "version": str(number),
            "digest": digest,
            "created": f"2026-01-0{number}T00:00:00+00:00",
            "objective": "masked-lm",
        }
        catalog.documents.insert("models", f"old/{number}", body)
    catalog.documents.insert("aliases", "models/old/production", {"kind": "models", "name": "old", "alias": "production", "version": "1"})
    (found,) = search(catalog.documents, "models", Query(task="masked-lm")).found
    assert (found.entry.latest, found.entry.updated[:10], found.entry.visibility) == ("2", "2026-01-02", "institute")
    catalog.set_alias("models", "old", "production", "2")
    catalog.roll_back("models", "old", "production")
    assert catalog.resolve("models", "old", alias="production")["version"] == "1"


def test_words_and_filters_find_entries(catalog: Catalog) -> None:
    catalog.publish("models", "infn-structures", "a", {"objective": "text-classification", "card": CARD}, about={"tags": ["infn"]})
    catalog.publish(
        "models", "physics-lm", "b", {"objective": "masked-lm"}, about={"description": "Abstracts of physics", "languages": ["en"]}
    )
    catalog.publish("datasets", "abstracts", "c", {})
    assert names(catalog, text="PHYSICS abstracts") == ["physics-lm"]
    assert names(catalog, task="masked-lm") == names(catalog, language="en") == ["physics-lm"]
    assert names(catalog, tags=("infn",)) == names(catalog, precision="int8") == names(catalog, licence="apache-2.0") == ["infn-structures"]
    assert names(catalog, text="infn", task="masked-lm") == []
    assert names(catalog, "datasets") == ["abstracts"]


def test_entries_come_in_the_order_that_is_asked_for(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        catalog.publish("models", name, name, {})
    usage.record(catalog.documents, "models", "b", "downloads")
    usage.record(catalog.documents, "models", "c", "served", 50)
    assert names(catalog, order="hotness") == ["c", "b", "a"]
    assert names(catalog, order="downloads") == ["b", "a", "c"]
    assert names(catalog, order="name") == ["a", "b", "c"]
    later = time.time() + 4 * usage.HALF_LIFE
    monkeypatch.setattr(time, "time", lambda: later)
    usage.record(catalog.documents, "models", "a", "served", 10)  # 70 a month ago are fewer than 10 now
    assert names(catalog, order="hotness") == ["a", "c", "b"]


def test_heat_loses_half_of_itself_in_a_half_life(catalog: Catalog) -> None:
    usage.record(catalog.documents, "models", "m", "served", 8)
    one = usage.of(catalog.documents, "models", "m")
    assert one.hotness(one.heated + usage.HALF_LIFE) == pytest.approx(4.0)
    assert one.hotness(one.heated + 3 * usage.HALF_LIFE) == pytest.approx(1.0)


def test_uses_counted_at_once_are_all_counted(catalog: Catalog) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: usage.record(catalog.documents, "models", "m", "served"), range(12)))
    assert usage.of(catalog.documents, "models", "m").served == 12


@pytest.mark.parametrize("order", ["hotness", "downloads", "date", "name"])
def test_pages_have_everything_once(catalog: Catalog, order: str) -> None:
    for number in range(7):
        catalog.publish("models", f"m{number}", str(number), {})
        usage.record(catalog.documents, "models", f"m{number}", "downloads", number % 3)
    whole, seen, cursor = names(catalog, order=order), [], None
    while True:
        page = search(catalog.documents, "models", Query(order=order), limit=3, cursor=cursor)
        seen += [one.entry.name for one in page.found]
        assert page.total == 7
        if not (cursor := page.cursor):
            break
    assert seen == whole
    assert sorted(seen) == [f"m{number}" for number in range(7)]


@pytest.mark.parametrize("cursor", ["", "x", "W10", "WyJuYW1lIiwgMCwgImEiXQ", "é", "bnVsbA"])
def test_a_cursor_of_another_search_is_refused(catalog: Catalog, cursor: str) -> None:
    catalog.publish("models", "m", "d", {})
    if not cursor:
        assert search(catalog.documents, "models", Query(), cursor=cursor).found
        return
    with pytest.raises(InvalidRequest) as caught:
        search(catalog.documents, "models", Query(order="date"), cursor=cursor)
    assert caught.value.field == "cursor"


def test_what_may_not_be_read_is_not_found(catalog: Catalog) -> None:
    for name, visibility in (("a", "public"), ("b", "private")):
        catalog.publish("models", name, name, {}, about={"visibility": visibility})
    page = search(catalog.documents, "models", Query(), readable=lambda entry: entry.visibility == "public")
    assert ([one.entry.name for one in page.found], page.total) == (["a"], 1)


def test_an_alias_goes_back_step_by_step_and_its_history_stays(catalog: Catalog) -> None:
    for digest in ("d1", "d2", "d3"):
        catalog.publish("models", "m", digest, {})
    for version in ("1", "2", "3"):
        catalog.set_alias("models", "m", "production", version, by="ada")
    assert catalog.roll_back("models", "m", "production")["version"] == "2"
    assert catalog.roll_back("models", "m", "production")["version"] == "1"
    with pytest.raises(Conflict):
        catalog.roll_back("models", "m", "production")
    moves = aliases.history(aliases.find(catalog.documents, "models", "m", "production").body)
    assert [one["version"] for one in moves] == ["1", "2", "3", "2", "1"]
    assert [one.get("rollback", False) for one in moves] == [False, False, False, True, True]
    assert moves[0]["by"] == "ada"
    catalog.set_alias("models", "m", "production", "3")
    assert catalog.roll_back("models", "m", "production")["version"] == "1"


def test_an_alias_that_has_moved_is_not_moved_by_who_does_not_know(catalog: Catalog) -> None:
    for digest in ("d1", "d2"):
        catalog.publish("models", "m", digest, {})
    catalog.set_alias("models", "m", "production", "1", if_revision=0)
    with pytest.raises(Outdated):
        catalog.set_alias("models", "m", "production", "2", if_revision=0)
    assert catalog.resolve("models", "m", alias="production")["version"] == "1"


def test_an_alias_that_was_removed_is_not_found_and_can_be_set_again(catalog: Catalog) -> None:
    catalog.publish("models", "m", "d1", {})
    catalog.set_alias("models", "m", "candidate", "1")
    aliases.drop(catalog.documents, "models", "m", "candidate")
    with pytest.raises(NotFound):
        catalog.resolve("models", "m", alias="candidate")
    assert catalog.aliases("models") == {}
    catalog.set_alias("models", "m", "candidate", "1", if_revision=0)
    assert catalog.aliases("models") == {"m": {"candidate": "1"}}


def test_a_version_is_not_deleted_while_something_depends_on_it_and_the_error_lists_what(catalog: Catalog) -> None:
    catalog.publish("models", "m", "d1", {})
    catalog.publish("indexes", "i", "x", {"model_digest": "d1", "model_name": "m"})
    catalog.publish("models", "child", "d2", {"parent": {"name": "m", "version": "1"}})
    catalog.set_alias("models", "m", "production", "1")
    with pytest.raises(Conflict) as caught:
        catalog.delete("models", "m", "1")
    assert caught.value.dependants == [
        {"kind": "alias", "name": "production"},
        {"kind": "model", "name": "child", "version": "1"},
        {"kind": "index", "name": "i", "version": "1"},
    ]
    assert "the alias `production`, the model `child` version 1, the index `i` version 1" in caught.value.detail
    aliases.drop(catalog.documents, "models", "m", "production")
    catalog.delete("models", "child", "1")
    catalog.delete("indexes", "i", "1")
    assert catalog.delete("models", "m", "1", by="ada")["digest"] == "d1"
    assert names(catalog) == []


def test_the_last_version_of_a_model_stays_while_an_index_follows_it(catalog: Catalog) -> None:
    for digest in ("d1", "d2"):
        catalog.publish("models", "m", digest, {})
    catalog.publish("indexes", "i", "x", {"model_name": "m"})
    catalog.delete("models", "m", "1")
    with pytest.raises(Conflict, match="the index `i` version 1"):
        catalog.delete("models", "m", "2")


def test_a_data_set_stays_while_a_model_was_trained_on_it(catalog: Catalog) -> None:
    catalog.publish("datasets", "rows", "d1", {})
    catalog.publish("models", "m", "d2", {"dataset": {"name": "rows", "version": "1"}})
    with pytest.raises(Conflict, match="the model `m` version 1"):
        catalog.delete("datasets", "rows", "1")


def test_a_data_set_is_found_by_what_is_in_it(catalog: Catalog) -> None:
    catalog.publish("datasets", "rows", "of the folder", {"sha256": "of the file"})
    for digest in ("of the folder", "of the file"):
        assert catalog.with_digest("datasets", digest)["name"] == "rows"
    assert catalog.with_digest("datasets", "of another") is None


def test_the_number_of_a_deleted_version_is_not_given_again(catalog: Catalog) -> None:
    for digest in ("d1", "d2"):
        catalog.publish("models", "m", digest, {})
    catalog.delete("models", "m", "2")
    with pytest.raises(NotFound):
        catalog.resolve("models", "m", revision="2")
    assert catalog.entry("models", "m").latest == "1"
    assert catalog.publish("models", "m", "d2", {})["version"] == "3"
    assert [body["version"] for body in catalog.versions("models")] == ["3", "1"]


def test_of_a_deletion_and_an_alias_at_once_one_gives_way(catalog: Catalog) -> None:
    for number in range(12):
        catalog.publish("models", f"m{number}", "d", {})

    def delete(name: str) -> None:
        catalog.delete("models", name, "1")

    def point(name: str) -> None:
        catalog.set_alias("models", name, "production", "1")

    def tried(what, name: str) -> bool:
        try:
            what(name)
        except (Conflict, NotFound):
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        for number in range(12):
            outcomes = [pool.submit(tried, what, f"m{number}") for what in (delete, point)]
            deleted, pointed = [one.result() for one in outcomes]
            assert not (deleted and pointed)
            assert bool(catalog.versions("models", f"m{number}")) is not deleted
            assert ("production" in catalog.aliases("models").get(f"m{number}", {})) is pointed
