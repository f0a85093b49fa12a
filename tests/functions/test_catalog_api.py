"""The catalog over real HTTP: what is read, what is changed by whom, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from mlaas import events, settings, storage
from mlaas import served as served_counts
from mlaas.catalog import Catalog, usage
from mlaas.catalog_api.interface import OPERATIONS
from mlaas.documents import shared
from mlaas.settings import Settings

FUNCTION = Path(__file__).parents[2] / "functions" / "catalog"
TOKEN = {"Authorization": "Bearer secret-of-the-test"}


@pytest.fixture
def catalog(home: Settings, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    monkeypatch.setenv("MLAAS_TOKEN", "secret-of-the-test")
    settings.current.cache_clear()
    catalog = Catalog(shared())
    catalog.entry("models", "minilm")
    catalog.entries.change("models", "minilm", {"visibility": "public", "tags": ["physics"], "description": "Sentences of physics"})
    return catalog


@pytest.fixture
def url(catalog: Catalog, served: Callable[[str], str]) -> str:
    return served("catalog")


def names(answer: requests.Response) -> list[str]:
    return [one["name"] for one in answer.json()["items"]]


def test_without_a_token_what_is_public_is_found_and_nothing_else(url: str) -> None:
    assert names(requests.get(f"{url}/v1/models")) == ["minilm"]
    assert requests.get(f"{url}/v1/models/physics-lm").status_code == 404
    assert requests.get(f"{url}/v1/models/physics-lm/versions/1/files/model.onnx").status_code == 404
    assert len(names(requests.get(f"{url}/v1/models", headers=TOKEN))) == 6
    assert requests.get(f"{url}/v1/models/physics-lm", headers=TOKEN).json()["task"] == "masked-lm"


def test_a_wrong_token_is_refused_and_changes_need_one(url: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic c2VjcmV0"}):
        answer = requests.patch(f"{url}/v1/models/minilm", json={"description": "mine"}, headers=headers)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert answer.headers["Content-Type"] == "application/problem+json"
    assert requests.get(f"{url}/v1/models/minilm").json()["description"] == "Sentences of physics"


def test_where_the_platform_has_no_token_no_token_is_good(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLAAS_TOKEN")
    settings.current.cache_clear()
    for token in ("", "None", "x"):
        assert requests.delete(f"{url}/v1/models/minilm", headers={"Authorization": f"Bearer {token}"}).status_code == 401


def test_entries_are_searched_filtered_and_paged_by_links(url: str) -> None:
    assert names(requests.get(f"{url}/v1/models?q=physics+sentences", headers=TOKEN)) == ["minilm"]
    assert names(requests.get(f"{url}/v1/models?task=masked-lm", headers=TOKEN)) == ["physics-lm"]
    assert names(requests.get(f"{url}/v1/indexes", headers=TOKEN)) == ["abstracts"]
    seen, following = [], f"{url}/v1/models?sort=name&limit=2"
    while following:
        answer = requests.get(following, headers=TOKEN)
        seen += names(answer)
        following = f"{url}{answer.links['next']['url']}" if "next" in answer.links else None
    assert seen == sorted(seen)
    assert len(seen) == 6


def test_an_entry_is_changed_under_the_condition_that_it_is_as_it_was_read(url: str) -> None:
    read = requests.get(f"{url}/v1/models/minilm", headers=TOKEN)
    changed = requests.patch(f"{url}/v1/models/minilm", json={"licence": "mit"}, headers={**TOKEN, "If-Match": read.headers["ETag"]})
    assert (changed.status_code, changed.json()["licence"], changed.json()["tags"]) == (200, "mit", ["physics"])
    assert changed.headers["ETag"] == requests.get(f"{url}/v1/models/minilm").headers["ETag"]
    late = requests.patch(f"{url}/v1/models/minilm", json={"licence": "gpl"}, headers={**TOKEN, "If-Match": read.headers["ETag"]})
    assert (late.status_code, late.json()["status"]) == (412, 412)
    unknown = requests.patch(f"{url}/v1/models/minilm", json={"licens": "gpl"}, headers=TOKEN)
    assert (unknown.status_code, unknown.json()["remedy"]) == (422, "Did you mean `licence`?")


def test_a_version_says_what_it_is_and_where_its_files_are(url: str) -> None:
    version = requests.get(f"{url}/v1/models/minilm/versions/latest").json()
    assert (version["version"], version["status"]) == ("1", "ready")
    assert [one["precision"] for one in version["variations"]] == ["fp32"]
    files = requests.get(f"{url}{version['files_href']}").json()["items"]
    assert {"model.onnx", "tokenizer.json", "manifest.json"} <= {one["name"] for one in files}
    assert requests.get(f"{url}/v1/models/minilm/versions/9").status_code == 404


def test_a_file_is_sent_whole_and_in_part_and_counted_once(url: str, catalog: Catalog, home: Settings) -> None:
    entry = catalog.resolve("models", "minilm")
    content = (storage.fetch(entry["path"], entry["storage_type"], settings=home) / "model.onnx").read_bytes()
    where = f"{url}/v1/models/minilm/versions/1/files/model.onnx"
    whole = requests.get(where)
    assert whole.content == content
    part = requests.get(where, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, content[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(content)}"
    assert requests.get(where, headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304
    assert requests.get(where, headers={"Range": f"bytes={len(content)}-"}).status_code == 416
    assert usage.of(catalog.documents, "models", "minilm").downloads == 1
    for other in ("../../../documents.sqlite", "%2e%2e/%2e%2e/latest.json", "absent", "/etc/passwd"):
        assert requests.get(f"{url}/v1/models/minilm/versions/1/files/{other}").status_code == 404


def test_an_alias_moves_goes_back_and_keeps_its_history(url: str, catalog: Catalog) -> None:
    first = catalog.resolve("models", "minilm")
    catalog.publish("models", "minilm", "d2", {name: first[name] for name in ("path", "storage_type", "objective")})
    where = f"{url}/v1/models/minilm/aliases/production"
    made = requests.put(where, json={"version": "1"}, headers={**TOKEN, "If-None-Match": "*"})
    assert made.status_code == 200
    assert requests.put(where, json={"version": "2"}, headers={**TOKEN, "If-None-Match": "*"}).status_code == 412
    assert requests.put(where, json={"version": "2"}, headers={**TOKEN, "If-Match": made.headers["ETag"]}).status_code == 200
    assert requests.put(where, json={"version": "7"}, headers=TOKEN).status_code == 404
    assert requests.get(f"{url}/v1/models/minilm").json()["aliases"] == {"production": "2"}
    back = requests.post(f"{where}/rollback", headers=TOKEN).json()
    assert (back["version"], [one["version"] for one in back["history"]]) == ("1", ["1", "2", "1"])
    assert back["history"][-1]["by"] == "token"
    assert requests.post(f"{where}/rollback", headers=TOKEN).status_code == 409
    assert requests.delete(where, headers=TOKEN).status_code == 204
    assert requests.get(where).status_code == 404


def test_a_deletion_is_refused_with_a_list_of_what_is_in_its_way(url: str, catalog: Catalog) -> None:
    catalog.set_alias("models", "minilm", "production", "1")
    for where in ("/v1/models/minilm/versions/1", "/v1/models/minilm"):
        refused = requests.delete(f"{url}{where}", headers=TOKEN)
        assert refused.status_code == 409
        assert {"kind": "alias", "name": "production"} in refused.json()["dependants"]
        assert {"kind": "index", "name": "abstracts", "version": "1"} in refused.json()["dependants"]
    assert requests.delete(f"{url}/v1/models/minilm/aliases/production", headers=TOKEN).status_code == 204
    assert requests.delete(f"{url}/v1/indexes/abstracts", headers=TOKEN).status_code == 204
    assert requests.delete(f"{url}/v1/models/minilm/versions/1", headers=TOKEN).status_code == 204
    assert requests.get(f"{url}/v1/models/minilm").status_code == 404


def test_a_card_is_markdown_the_entrys_where_the_version_has_none(url: str) -> None:
    where = f"{url}/v1/models/minilm/versions/1/card"
    assert requests.get(where).status_code == 404
    requests.patch(f"{url}/v1/models/minilm", json={"card": "# minilm\nè bello"}, headers=TOKEN)
    card = requests.get(where)
    card.encoding = "utf-8"
    assert (card.text, card.headers["Content-Type"]) == ("# minilm\nè bello", "text/markdown; charset=utf-8")


def test_what_is_not_there_and_what_cannot_be_read_is_a_problem(url: str) -> None:
    for method, path, status in (
        ("GET", "/v1/pictures", 404),
        ("GET", "/v1/models/a/b/c", 404),
        ("GET", "/v1/models?limit=0", 422),
        ("GET", "/v1/models?cursor=x", 422),
        ("GET", "/v1/models/minilm/versions?cursor=x", 422),
        ("PATCH", "/v1/models/minilm", 400),
    ):
        answer = requests.request(method, f"{url}{path}", data=b"{", headers=TOKEN)
        assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json"), path
        assert answer.json()["remedy"]


def test_what_was_served_is_counted_once_it_is_known(url: str, catalog: Catalog) -> None:
    reply = events.build(
        events.event_type("search", "succeeded"), "/mlaas/search", {"model": {"name": "minilm"}, "index": {"name": "abstracts"}}
    )
    unknown = events.build(events.event_type("classify", "succeeded"), "/x", {"model": {"name": "nobody's"}})
    for event in (reply, unknown, events.build(events.event_type("ner", "succeeded"), "/x", ["?"])):
        headers, body = events.to_http(event)
        assert requests.post(url, data=body, headers=dict(headers)).status_code == 204
    served_counts.flush()
    assert usage.of(catalog.documents, "models", "minilm").served == 1
    assert requests.get(f"{url}/v1/indexes/abstracts", headers=TOKEN).json()["served"] == 1
    assert usage.of(catalog.documents, "models", "nobody's").served == 0
    assert catalog.documents.count("ledger", {}) == 0


def test_the_description_is_made_from_the_operations(url: str) -> None:
    described = requests.get(f"{url}/openapi.json").json()
    assert described["openapi"] == "3.1.0"
    ids = {one["operationId"] for path in described["paths"].values() for one in path.values()}
    assert ids == {one.id for one in OPERATIONS}
    assert json.dumps(described).count("#/$defs") == 0
