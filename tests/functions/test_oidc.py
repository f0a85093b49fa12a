"""Tokens of a real issuer on loopback: which are good, what their groups may do, and what happens while it is away."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mlaas.catalog import Catalog
from mlaas.catalog_api import oidc
from mlaas.documents import shared
from mlaas.settings import BadSetting, load
from mlaas.testing.local_issuer import LocalIssuer

ROWS = b"text,label\nINFN Frascati,LNF\nINFN Pisa,PI\n"


@pytest.fixture
def url(configured: Callable[..., None], served: Callable[[str], str]) -> str:
    catalog = Catalog(shared())
    for name, visibility, owner in (
        ("minilm", "public", None),
        ("physics-lm", "private", "group:physics"),
        ("infn-structures", "private", "ada"),
    ):
        catalog.entry("models", name)
        catalog.entries.change("models", name, {"visibility": visibility, "owner": owner})
    return served("catalog")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def status(url: str, token: str) -> int:
    return requests.get(f"{url}/v1/models", headers=bearer(token)).status_code


def encoded(part: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode() if isinstance(part, dict) else part).rstrip(b"=").decode()


def test_a_token_of_the_issuer_is_good_and_its_keys_are_asked_for_once(url: str, issuer: LocalIssuer) -> None:
    assert [status(url, issuer.token()) for _ in range(3)] == [200] * 3
    assert status(url, issuer.token(aud=["other", "mlaas"])) == 200
    assert len(issuer.asked) == 2
    assert status(url, "t") == 200


@pytest.mark.parametrize(
    ("claims", "detail"),
    [
        ({"exp": time.time() - 3600}, "expired"),
        ({"exp": None}, "configured issuer"),
        ({"exp": 10**400}, "configured issuer"),
        ({"nbf": time.time() + 3600}, "configured issuer"),
        ({"aud": "another"}, "audience"),
        ({"aud": None}, "configured issuer"),
        ({"iss": "https://elsewhere.example"}, "another issuer"),
        ({"sub": "group:physics"}, "known"),
        ({"sub": "x" * 101}, "known"),
        ({"sub": None}, "known"),
    ],
)
def test_claims_that_are_not_for_this_platform_are_refused(url: str, issuer: LocalIssuer, claims: dict[str, Any], detail: str) -> None:
    answer = requests.get(f"{url}/v1/models", headers=bearer(issuer.token(**claims)))
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert detail in answer.json()["detail"]


def test_signatures_that_prove_nothing_are_refused(url: str, issuer: LocalIssuer) -> None:
    good = issuer.token()
    head, body, signature = good.split(".")
    assert status(url, f"{encoded({'alg': 'none', 'kid': 'first'})}.{body}.") == 401
    assert status(url, f"{encoded({'alg': 'none', 'kid': 'first'})}.{body}.{signature}") == 401
    public = issuer.keys["first"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    forged = f"{encoded({'alg': 'HS256', 'kid': 'first'})}.{body}"
    assert status(url, f"{forged}.{encoded(hmac.new(public, forged.encode(), sha256).digest())}") == 401
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert status(url, issuer.token(key=stranger)) == 401
    other = encoded({**json.loads(base64.urlsafe_b64decode(body + "==")), "sub": "eve"})
    assert status(url, f"{head}.{other}.{signature}") == 401
    for garbage in ("a.b.c", "..", "é.é.é", f"{head}.{body}.", f"{'x' * 20000}.b.c", f"{encoded({'alg': 'RS256', 'kid': 7})}.{body}.x"):
        assert requests.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {garbage}".encode()}).status_code == 401, garbage
    assert status(url, good) == 200


def test_a_key_that_is_not_known_is_looked_for_once_in_a_while(url: str, issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert status(url, issuer.token()) == 200
    assert [status(url, issuer.token(kid=f"made-up-{n}")) for n in range(5)] == [401] * 5
    assert issuer.asked.count("/realms/test/certs") == 1
    monkeypatch.setattr(oidc._issuer(issuer.url)._client, "cooldown_duration", 0)
    old = issuer.token()
    issuer.rotate("second")
    assert status(url, issuer.token()) == 200
    assert status(url, old) == 401


def test_an_issuer_that_is_away_is_503_and_those_whose_keys_are_known_go_on(
    url: str, issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.away = True
    for _ in range(3):
        answer = requests.get(f"{url}/v1/models", headers=bearer(issuer.token()))
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert len(issuer.asked) == 1, "it is not asked by each request"
    assert status(url, "t") == 200
    assert requests.get(f"{url}/v1/models").status_code == 200
    issuer.away = False
    monkeypatch.setattr(oidc._issuer(issuer.url), "_not_before", 0.0)
    assert status(url, issuer.token()) == 200
    issuer.away = True
    assert status(url, issuer.token()) == 200


def test_roles_come_from_groups_and_entries_are_seen_by_whom_they_belong_to(url: str, issuer: LocalIssuer) -> None:
    def seen(**claims: Any) -> set[str]:
        answer = requests.get(f"{url}/v1/models", headers=bearer(issuer.token(**claims)))
        return {one["name"] for one in answer.json()["items"]}

    everything = seen(sub="root", groups=["ml-admins"])
    assert len(everything) == 6
    assert seen(sub="bob") == everything - {"physics-lm", "infn-structures"}
    assert seen(sub="bob", groups=["physics"]) == everything - {"infn-structures"}
    assert seen(sub="ada") == everything - {"physics-lm"}
    assert requests.get(f"{url}/v1/tasks", headers=bearer(issuer.token())).status_code == 403
    assert requests.get(f"{url}/v1/tasks", headers=bearer(issuer.token(roles="x ml-users"))).status_code == 200


def test_only_owners_change_what_is_theirs(url: str, issuer: LocalIssuer) -> None:
    def change(name: str, body: Any, **claims: Any) -> int:
        return requests.patch(f"{url}/v1/models/{name}", json=body, headers=bearer(issuer.token(**claims))).status_code

    said = {"description": "new"}
    users = ["ml-users"]
    assert change("infn-structures", said, sub="ada") == 403, "a reader changes nothing"
    assert change("infn-structures", said, sub="ada", groups=users) == 200
    assert change("physics-lm", said, sub="bob", groups=[*users, "physics"]) == 200
    assert change("minilm", said, sub="ada", groups=users) == 403
    assert change("physics-lm", said, sub="ada", groups=users) == 404, "what is hidden is not there"
    assert change("nothing", said, sub="ada", groups=users) == 404
    for owner, expected in (("bob", 403), (None, 403), ("group:else", 403), ("group:ml-users", 200)):
        assert change("infn-structures", {"owner": owner}, sub="ada", groups=users) == expected, owner
    assert change("minilm", {"owner": "bob"}, sub="root", groups=["ml-admins"]) == 200
    for path, method in (
        ("", "DELETE"),
        ("/versions/1", "DELETE"),
        ("/aliases/a", "PUT"),
        ("/aliases/a", "DELETE"),
        ("/aliases/a/rollback", "POST"),
    ):
        answer = requests.request(
            method, f"{url}/v1/models/minilm{path}", json={"version": "1"}, headers=bearer(issuer.token(groups=users))
        )
        assert (answer.status_code, answer.json()["type"]) == (403, "urn:mlaas:problem:forbidden"), path


def test_what_a_user_uploads_belongs_to_the_user(url: str, issuer: LocalIssuer) -> None:
    def send(sub: str, **query: str) -> requests.Response:
        where = f"{url}/v1/datasets/of-ada/versions"
        token = issuer.token(sub=sub, groups=["ml-users"])
        return requests.post(
            where, data=ROWS + query.pop("more", "").encode(), params={"filename": "a.csv", **query}, headers=bearer(token)
        )

    assert send("ada", owner="bob").status_code == 403
    assert send("ada", parent="physics-lm:1").status_code == 404, "nor does an upload tell what is hidden"
    assert send("ada").status_code == 201
    assert requests.get(f"{url}/v1/datasets/of-ada", headers=bearer("t")).json()["owner"] == "ada"
    assert send("eve", more="x,y\n").status_code == 403
    assert send("ada", more="x,y\n").json()["version"] == "2"


def test_the_web_app_takes_such_a_token_and_lets_nobody_do_more_than_the_role(url: str, issuer: LocalIssuer) -> None:
    reader, user, admin = requests.Session(), requests.Session(), requests.Session()
    for browser, groups in ((reader, []), (user, ["ml-users"]), (admin, ["ml-admins"])):
        groups = [*groups, *(f"a-group-with-a-long-name-{n}" for n in range(200))]
        assert browser.post(f"{url}/web/login", data={"token": issuer.token(groups=groups)}, allow_redirects=False).status_code == 303
    assert "physics-lm" in admin.get(f"{url}/web/models").text
    assert "physics-lm" not in user.get(f"{url}/web/models").text
    assert [browser.get(f"{url}/web/tasks").status_code for browser in (reader, user, admin)] == [403, 200, 200]
    assert [browser.get(f"{url}/web/train").status_code for browser in (reader, user, admin)] == [403, 403, 200]
    Catalog(shared()).delete_all("models", "infn-structures")  # the only classifier, after which the start page offers to train one
    offers = [
        ("Train the demonstration" in browser.get(f"{url}/web/").text, "Log in" in browser.get(f"{url}/web/").text)
        for browser in (reader, user, admin)
    ]
    assert offers == [(False, False), (False, False), (True, False)]
    wrong = requests.post(f"{url}/web/login", data={"token": issuer.token(aud="another")})
    assert (wrong.status_code, "The token is for another audience." in wrong.text) == (401, True)


def test_a_session_ends_with_its_token(url: str, issuer: LocalIssuer) -> None:
    browser = requests.Session()
    browser.post(f"{url}/web/login", data={"token": issuer.token(sub="ada", exp=int(time.time()) - 1)})  # clocks may differ by so much
    assert browser.cookies
    assert "infn-structures" not in browser.get(f"{url}/web/models").text


@pytest.mark.parametrize(
    ("claims", "path", "found"),
    [
        ({"wlcg.groups": ["/ml"]}, "wlcg.groups", {"/ml"}),
        ({"realm_access": {"roles": ["a", "b", 3]}}, "realm_access.roles", {"a", "b"}),
        ({"resource_access": {"my.client": {"roles": ["a"]}}}, "resource_access.my.client.roles", {"a"}),
        ({"scope": "a b"}, "scope", {"a", "b"}),
        ({"groups": {"a": 1}}, "groups", set()),
        ({}, "a.b.c", set()),
    ],
)
def test_groups_are_found_where_issuers_put_them(claims: dict[str, Any], path: str, found: set[str]) -> None:
    assert oidc._names(oidc._claim(claims, path)) == found


@pytest.mark.parametrize(
    "environ",
    [
        {"MLAAS_OIDC_ISSUER": "https://iam.example/"},
        {"MLAAS_OIDC_ISSUER": "http://iam.example/", "MLAAS_OIDC_AUDIENCE": "a"},
        {"MLAAS_OIDC_ISSUER": "iam.example", "MLAAS_OIDC_AUDIENCE": "a"},
        {"MLAAS_OIDC_ROLE_MAP": "users=root"},
        {"MLAAS_OIDC_ROLE_MAP": "users"},
    ],
)
def test_settings_that_would_let_in_more_than_was_meant_stop_the_start(environ: dict[str, str]) -> None:
    with pytest.raises(BadSetting, match="MLAAS_OIDC"):
        load(environ)
