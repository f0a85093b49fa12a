"""How often somebody may ask, and which sites' scripts may read the answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import requests

from mlaas import settings
from mlaas.catalog_api import rates
from mlaas.settings import BadSetting, Settings, load

TOKEN = {"Authorization": "Bearer t"}
SITE = "https://notebooks.example.org"


@pytest.fixture
def url(home: Settings, monkeypatch: pytest.MonkeyPatch, served: Callable[[str], str]) -> str:
    monkeypatch.setenv("MLAAS_TOKEN", "t")
    monkeypatch.setenv("MLAAS_REQUESTS_PER_MINUTE", "6")
    monkeypatch.setenv("MLAAS_CORS_ORIGINS", f"{SITE}, https://other.example.org:8443")
    monkeypatch.setattr(rates, "_BUCKETS", rates.Buckets())
    settings.current.cache_clear()
    return served("catalog")


def test_who_asks_too_often_is_told_when_to_ask_again(url: str) -> None:
    assert [requests.get(f"{url}/v1/models").status_code for _ in range(6)] == [200] * 6
    late = requests.get(f"{url}/v1/models")
    assert (late.status_code, late.json()["type"]) == (429, "urn:mlaas:problem:overloaded")
    assert 1 <= int(late.headers["Retry-After"]) <= 10
    page = requests.get(f"{url}/web/models")
    assert (page.status_code, page.headers["Retry-After"].isdecimal()) == (429, True)
    assert {requests.get(f"{url}/v1/models", headers=TOKEN).status_code for _ in range(8)} == {200}


def test_tokens_are_not_tried_out_without_end(url: str) -> None:
    tried = [requests.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {n}"}).status_code for n in range(8)]
    assert tried == [401] * 6 + [429] * 2


def test_a_bucket_fills_steadily_and_no_higher_than_its_rim(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(rates.time, "monotonic", lambda: now[0])
    buckets = rates.Buckets()
    assert [buckets.take("ada", 2) for _ in range(3)] == [0, 0, 30]
    assert buckets.take("bob", 2) == 0
    now[0] += 15
    assert buckets.take("ada", 2) == 15
    now[0] += 15
    assert [buckets.take("ada", 2), buckets.take("ada", 2)] == [0, 30]
    now[0] += 3600
    assert [buckets.take("ada", 2) for _ in range(3)] == [0, 0, 30]
    for n in range(rates._KEPT + 5):
        buckets.take(str(n), 2)
    assert len(buckets._left) == rates._KEPT


def test_scripts_of_named_sites_only_may_read_answers(url: str) -> None:
    asked = {"Origin": SITE, "Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "authorization"}
    before = requests.options(f"{url}/v1/models/minilm", headers=asked)
    assert (before.status_code, before.headers["Access-Control-Allow-Origin"]) == (200, SITE)
    assert "PATCH" in before.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in before.headers["Access-Control-Allow-Headers"]
    answer = requests.get(f"{url}/v1/models", headers={**TOKEN, "Origin": SITE})
    assert (answer.headers["Access-Control-Allow-Origin"], "Origin" in answer.headers["Vary"]) == (SITE, True)
    assert "Access-Control-Allow-Credentials" not in answer.headers
    for origin in ("https://evil.example", "null", f"{SITE}.evil.example", SITE.replace("https", "http")):
        refused = requests.options(f"{url}/v1/models", headers={**asked, "Origin": origin})
        assert not [name for name in refused.headers if name.startswith("Access-Control")], origin
    page = requests.get(f"{url}/web/models", headers={**TOKEN, "Origin": SITE})
    assert "Access-Control-Allow-Origin" not in page.headers


def test_by_default_no_site_may_and_answers_are_no_pages(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLAAS_CORS_ORIGINS")
    settings.current.cache_clear()
    for path in ("/v1/models", "/v1/models/minilm/versions/1/files/config.json", "/v1/nothing/at/all", "/openapi.json"):
        answer = requests.get(f"{url}{path}", headers={**TOKEN, "Origin": SITE})
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert not [name for name in answer.headers if name.startswith("Access-Control")]
    assert "script-src 'self'" in requests.get(f"{url}/web/models", headers=TOKEN).headers["Content-Security-Policy"]


@pytest.mark.parametrize("origins", ["*", "notebooks.example.org", "https://a.example/", "https://a.example,null"])
def test_origins_that_are_none_stop_the_start(origins: str) -> None:
    with pytest.raises(BadSetting, match="MLAAS_CORS_ORIGINS"):
        load({"MLAAS_CORS_ORIGINS": origins})
