"""The audit log: every change that somebody known asks for, done or refused, and who may read it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import requests
from typer.testing import CliRunner

from mlaas import settings
from mlaas.catalog import Catalog, audit
from mlaas.catalog_api.interface import OPERATIONS
from mlaas.cli import app
from mlaas.documents import shared
from mlaas.errors import Unavailable
from mlaas.settings import Settings

TOKEN = {"Authorization": "Bearer secret-of-the-test"}


@pytest.fixture
def url(home: Settings, monkeypatch: pytest.MonkeyPatch, served: Callable[[str], str]) -> str:
    monkeypatch.setenv("MLAAS_TOKEN", "secret-of-the-test")
    settings.current.cache_clear()
    return served("catalog")


def changes(url: str, **query: Any) -> list[dict[str, Any]]:
    answer = requests.get(f"{url}/v1/audit", params=query, headers=TOKEN)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


def test_a_change_is_recorded_with_who_what_and_what_became_of_it(url: str) -> None:
    requests.put(f"{url}/v1/models/minilm/aliases/production", json={"version": "1"}, headers=TOKEN)
    requests.patch(f"{url}/v1/models/minilm", json={"description": "a text that is nobody's business"}, headers=TOKEN)
    requests.delete(f"{url}/v1/models/nothing/versions/7", headers=TOKEN)
    rows = b"text,label\nINFN Frascati,LNF\n"
    requests.post(f"{url}/v1/datasets/new/versions", params={"filename": "a.csv"}, data=rows, headers=TOKEN)
    found = changes(url)
    assert [(one["operation"], one["name"], one.get("target"), one["outcome"], one.get("reason")) for one in found] == [
        ("uploadVersion", "new", None, "succeeded", None),
        ("deleteVersion", "nothing", "7", "refused", "NotFound"),
        ("changeEntry", "minilm", None, "succeeded", None),
        ("putAlias", "minilm", "production", "succeeded", None),
    ]
    assert {one["subject"] for one in found} == {"token"}
    assert found[0]["made"] == "/v1/datasets/new/versions/1"
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found[0]["time"])
    kept = json.dumps([stored.body for stored in shared().find("audit", {})])
    assert "business" not in kept
    assert "secret" not in kept


def test_reading_and_the_attempts_of_nobody_known_are_no_changes(url: str) -> None:
    requests.get(f"{url}/v1/models", headers=TOKEN)
    assert requests.delete(f"{url}/v1/models/minilm").status_code == 401
    assert requests.delete(f"{url}/v1/models/minilm", headers={"Authorization": "Bearer x"}).status_code == 401
    assert changes(url) == []


def test_changes_are_filtered_and_paged_and_nobody_changes_them(url: str) -> None:
    for number in range(5):
        requests.patch(f"{url}/v1/models/{('minilm', 'physics-lm')[number % 2]}", json={"description": str(number)}, headers=TOKEN)
    assert [one["name"] for one in changes(url, name="physics-lm")] == ["physics-lm"] * 2
    assert changes(url, operation="deleteEntry") == changes(url, subject="ada") == changes(url, kind="indexes") == []
    assert changes(url, until=changes(url)[-1]["time"]) == []
    assert len(changes(url, since=changes(url)[-1]["time"])) == 5
    first = requests.get(f"{url}/v1/audit", params={"limit": 3}, headers=TOKEN)
    second = requests.get(f"{url}{first.links['next']['url']}", headers=TOKEN)
    assert [*first.json()["items"], *second.json()["items"]] == changes(url)
    assert requests.get(f"{url}/v1/audit").status_code == 401
    assert requests.get(f"{url}/v1/audit?cursor=x", headers=TOKEN).status_code == 422
    assert {one.method for one in OPERATIONS if one.path.startswith("/v1/audit")} == {"GET"}
    assert requests.delete(f"{url}/v1/audit", headers=TOKEN).status_code == 404
    ran = CliRunner().invoke(app, ["catalog", "audit", "physics-lm", "--limit", "1", "--json"])
    assert (ran.exit_code, json.loads(ran.stdout)["items"][0]["name"]) == (0, "physics-lm")
    shown = CliRunner().invoke(app, ["catalog", "audit"])
    assert (shown.exit_code, shown.stdout.count("changeEntry")) == (0, 5)


def test_forms_of_the_web_app_are_recorded(url: str) -> None:
    answer = requests.post(f"{url}/web/tasks/no-such-task/cancel", headers=TOKEN)
    assert answer.status_code == 404
    requests.post(f"{url}/web/train", data={"action": "preview"}, headers=TOKEN)
    requests.post(f"{url}/web/train", data={"action": "send"}, headers=TOKEN)
    found = [(one["operation"], one.get("target"), one["outcome"]) for one in changes(url)]
    assert found == [("web.train", None, "refused"), ("web.cancel", "no-such-task", "refused")]


def test_without_a_record_nothing_is_changed_and_what_was_cut_off_is_seen(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = Catalog(shared()).documents
    with audit.recorded(documents, "ada", "putAlias", {"kind": "models", "name": "x" * 500}):
        (begun,), _ = audit.find(documents)
    assert (begun.outcome, len(begun.name or "")) == ("begun", 200)
    with pytest.raises(ZeroDivisionError), audit.recorded(documents, "ada", "putAlias", {}):
        _ = 1 / 0
    assert [one.outcome for one in audit.find(documents)[0]] == ["failed", "succeeded"]

    def away(*_: Any, **__: Any) -> bool:
        raise Unavailable("the store is away")

    reached = []
    monkeypatch.setattr(type(documents), "insert", away)
    with pytest.raises(Unavailable), audit.recorded(documents, "ada", "putAlias", {}):
        reached.append("changed")
    assert reached == []
