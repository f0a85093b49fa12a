"""Aliases that are moved and rolled back by the forms of an entry's page."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import requests

from mlaas.catalog import Catalog, audit
from mlaas.documents import shared
from mlaas.testing.local_issuer import LocalIssuer

PAGE = "/web/models/minilm"


class Browser(requests.Session):
    """A session of the web app, which sends its forms as a browser does."""

    def __init__(self, url: str, token: str) -> None:
        super().__init__()
        self.url = url
        assert self.post(f"{url}/web/login", data={"token": token}, allow_redirects=False).status_code == 303

    def page(self, path: str = PAGE) -> str:
        """The page at `path`."""
        return self.get(f"{self.url}{path}").text

    def submit(self, path: str, **data: str) -> requests.Response:
        """The answer to a form of the page."""
        proof = re.search(r'name="csrf" value="([0-9a-f]{64})"', self.page())
        assert proof
        return self.post(f"{self.url}{path}", data={"csrf": proof[1], **data}, allow_redirects=False)


@pytest.fixture
def url(configured: Callable[..., None], served: Callable[[str], str]) -> str:
    catalog = Catalog(shared())
    first = catalog.resolve("models", "minilm")
    known = {name: first[name] for name in ("path", "storage_type", "objective")}
    for number in ("2", "3"):
        assert catalog.publish("models", "minilm", f"digest-{number}", known)["version"] == number
    catalog.entries.change("models", "minilm", {"owner": "ada", "visibility": "public"})
    return served("catalog")


@pytest.fixture
def ada(url: str, issuer: LocalIssuer) -> Browser:
    return Browser(url, issuer.token(sub="ada", groups=["ml-users"]))


def points() -> dict[str, str]:
    return Catalog(shared()).aliases_of("models", "minilm")


def revision_of(page: str, alias: str) -> str:
    found = re.search(rf'name="alias" value="{alias}"><input type="hidden" name="revision" value="(\d+)"', page)
    assert found
    return found[1]


def test_an_owner_moves_an_alias_sees_its_history_and_rolls_it_back(ada: Browser) -> None:
    for version in ("1", "3"):
        answer = ada.submit(f"{PAGE}/aliases", alias="production", version=version)
        assert (answer.status_code, answer.headers["Location"]) == (303, f"{PAGE}?moved=production")
    page = ada.page(f"{PAGE}?moved=production")
    assert "production points to version 3." in page
    assert re.search(r"<li>to 3 <time.*?by ada</li><li>to 1 <time.*?by ada</li>", page)
    answer = ada.submit(f"{PAGE}/aliases/rollback", alias="production", revision=revision_of(page, "production"))
    assert (answer.status_code, answer.headers["Location"]) == (303, f"{PAGE}?back=production")
    assert points() == {"production": "1"}
    page = ada.page(f"{PAGE}?back=production")
    assert "production points back to version 1." in page
    assert "to 1, back" in page


def test_a_rollback_that_is_sent_twice_is_made_once(ada: Browser) -> None:
    for version in ("1", "2", "3"):
        ada.submit(f"{PAGE}/aliases", alias="production", version=version)
    form = {"alias": "production", "revision": revision_of(ada.page(), "production")}
    assert ada.submit(f"{PAGE}/aliases/rollback", **form).status_code == 303
    again = ada.submit(f"{PAGE}/aliases/rollback", **form)
    assert (again.status_code, points()) == (412, {"production": "2"})
    assert "has moved meanwhile" in again.text


@pytest.mark.parametrize(
    ("form", "status", "said", "remedy"),
    [
        ({"alias": "Production!", "version": "1"}, 422, "This cannot be a name", "Use lowercase letters"),
        ({"alias": "", "version": "1"}, 422, "This cannot be a name", "Use lowercase letters"),
        ({"alias": "candidate", "version": "9"}, 404, "There is no such version", "Use the number"),
        ({"alias": "candidate", "version": "<b>newest</b>"}, 422, "There is no such version", "Use the number"),
        ({"alias": "candidate", "version": ""}, 422, "There is no such version", "Use the number"),
    ],
)
def test_what_is_refused_is_said_in_the_page_with_what_was_written(
    ada: Browser, form: dict[str, str], status: int, said: str, remedy: str
) -> None:
    answer = ada.submit(f"{PAGE}/aliases", **form)
    assert answer.status_code == status
    assert said in answer.text
    assert remedy in answer.text
    assert "<h1>minilm</h1>" in answer.text
    assert f'name="alias" value="{form["alias"]}"' in answer.text
    assert "<b>" not in answer.text
    assert points() == {}


def test_what_has_nowhere_to_go_back_to_is_said_in_the_page(ada: Browser) -> None:
    ada.submit(f"{PAGE}/aliases", alias="candidate", version="1")
    assert "Roll candidate back" not in ada.page()
    answer = ada.submit(f"{PAGE}/aliases/rollback", alias="candidate")
    assert (answer.status_code, "pointed to nothing else" in answer.text) == (409, True)
    assert ada.submit(f"{PAGE}/aliases/rollback", alias="absent").status_code == 404


def test_who_may_not_change_an_entry_sees_no_buttons_and_moves_nothing(url: str, issuer: LocalIssuer) -> None:
    Catalog(shared()).set_alias("models", "minilm", "production", "1")
    Catalog(shared()).set_alias("models", "minilm", "production", "2")
    reader, other = Browser(url, issuer.token(sub="ada")), Browser(url, issuer.token(sub="eve", groups=["ml-users"]))
    for page in (requests.get(f"{url}{PAGE}").text, reader.page(), other.page()):
        assert "production → 2" in page
        assert "Move alias" not in page
        assert "Roll production back" not in page
    for browser in (reader, other):
        assert browser.submit(f"{PAGE}/aliases", alias="production", version="3").status_code == 403
        assert browser.submit(f"{PAGE}/aliases/rollback", alias="production").status_code == 403
    nobody = requests.post(f"{url}{PAGE}/aliases", data={"alias": "production", "version": "3"}, allow_redirects=False)
    assert (nobody.status_code, nobody.headers["Location"].startswith("/web/login")) == (303, True)
    Catalog(shared()).entries.change("models", "minilm", {"visibility": "private"})
    assert other.post(f"{url}{PAGE}/aliases", headers={"Authorization": "Bearer t"}, data={}).status_code == 422
    assert points() == {"production": "2"}


def test_a_form_without_the_proof_of_its_session_moves_nothing(ada: Browser) -> None:
    for path in (f"{PAGE}/aliases", f"{PAGE}/aliases/rollback"):
        assert ada.post(f"{ada.url}{path}", data={"alias": "production", "version": "1"}).status_code == 422
        elsewhere = {"Sec-Fetch-Site": "cross-site"}
        assert ada.post(f"{ada.url}{path}", data={"alias": "production", "version": "1"}, headers=elsewhere).status_code == 422
    assert points() == {}


def test_each_change_and_each_refusal_is_recorded(ada: Browser) -> None:
    ada.submit(f"{PAGE}/aliases", alias="production", version="1")
    ada.submit(f"{PAGE}/aliases", alias="production", version="7")
    ada.submit(f"{PAGE}/aliases/rollback", alias="production")
    found: list[Any] = audit.find(shared())[0]
    assert [(one.subject, one.operation, one.kind, one.name, one.target, one.outcome) for one in found] == [
        ("ada", "web.roll_back_alias", "models", "minilm", "production", "refused"),
        ("ada", "web.move_alias", "models", "minilm", "production", "refused"),
        ("ada", "web.move_alias", "models", "minilm", "production", "succeeded"),
    ]


def test_a_vector_store_has_the_same_forms(url: str) -> None:
    root = Browser(url, "t")
    name = Catalog(shared()).versions("indexes", limit=1)[0]["name"]
    assert "Move alias" in root.page(f"/web/indexes/{name}")
    assert root.submit(f"/web/indexes/{name}/aliases", alias="production", version="1").status_code == 303
    assert Catalog(shared()).aliases_of("indexes", name) == {"production": "1"}
