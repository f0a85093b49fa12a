"""The catalog: versions never change, aliases move."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlaas.catalog import Catalog, name_of
from mlaas.documents import connect
from mlaas.errors import NotFound


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(connect(f"sqlite:///{tmp_path}/documents.sqlite"))


def test_versions_count_up_and_the_latest_is_the_default(catalog: Catalog) -> None:
    for digest in ("d1", "d2", "d3"):
        catalog.publish("models", "m", digest, {"path": digest})
    assert catalog.resolve("models", "m")["version"] == "3"
    assert catalog.resolve("models", "m", revision="1")["digest"] == "d1"


def test_the_latest_is_the_last_one_published_though_the_clock_was_set_back(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog.publish("models", "m", "d1", {})
    hour_ago = time.time_ns() - 3600 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: hour_ago)
    catalog.publish("models", "m", "d2", {})
    assert catalog.resolve("models", "m")["digest"] == "d2"


def test_the_same_content_is_the_same_version(catalog: Catalog) -> None:
    first = catalog.publish("models", "m", "d1", {"path": "a"})
    assert catalog.publish("models", "m", "d1", {"path": "b"}) == first
    assert len(catalog.versions("models", "m")) == 1


def test_concurrent_publishers_get_different_versions(catalog: Catalog) -> None:
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda number: catalog.publish("models", "m", f"d{number}", {})["version"], range(16)))
    assert sorted(map(int, versions)) == list(range(1, 17))


def test_an_alias_moves_and_the_versions_stay(catalog: Catalog) -> None:
    for digest in ("d1", "d2"):
        catalog.publish("models", "m", digest, {})
    catalog.set_alias("models", "m", "production", "1")
    assert catalog.resolve("models", "m", alias="production")["digest"] == "d1"
    catalog.set_alias("models", "m", "production", "2")
    assert catalog.resolve("models", "m", alias="production")["digest"] == "d2"
    assert catalog.aliases("models") == {"m": {"production": "2"}}


@pytest.mark.parametrize(
    ("name", "how", "field"), [("x", {}, "model.name"), ("m", {"alias": "absent"}, "model.alias"), ("m", {"revision": "9"}, "model.name")]
)
def test_what_is_not_there_is_not_found_and_the_field_is_named(catalog: Catalog, name: str, how: dict[str, str], field: str) -> None:
    catalog.publish("models", "m", "d1", {})
    with pytest.raises(NotFound) as caught:
        catalog.resolve("models", name, **how)
    assert caught.value.field == field


def test_a_misspelt_name_is_answered_with_the_nearest_one(catalog: Catalog) -> None:
    catalog.publish("models", "infn-structures", "d1", {})
    with pytest.raises(NotFound) as caught:
        catalog.resolve("models", "infn-structure")
    assert caught.value.remedy == "Did you mean `infn-structures`?"


def test_followers_are_the_latest_index_of_each_name_built_with_a_model(catalog: Catalog) -> None:
    for digest, name, model in (("1", "a", "m"), ("2", "a", "m"), ("3", "b", "other"), ("4", "c", "m")):
        catalog.publish("indexes", name, digest, {"model_name": model})
    assert sorted((entry["name"], entry["digest"]) for entry in catalog.followers("m")) == [("a", "2"), ("c", "4")]


@pytest.mark.parametrize(
    ("path", "name", "expected"), [("models/INFN Structures/", None, "infn-structures"), ("a/b", "c", "c"), ("///", None, "unnamed")]
)
def test_a_name_comes_from_the_path_unless_it_is_given(path: str, name: str | None, expected: str) -> None:
    assert name_of(path, name) == expected
