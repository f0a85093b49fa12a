"""Logging in to the web app at a real issuer on loopback: authorization code, PKCE, state and nonce, and every way in which it is refused."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest
import requests

from mlaas import serve, settings
from mlaas.catalog import Catalog
from mlaas.catalog_api import oidc
from mlaas.documents import shared
from mlaas.settings import BadSetting, load
from mlaas.testing import web_platform
from mlaas.testing.local_issuer import LocalIssuer
from mlaas.web import issuer_pages
from mlaas.web import session as sessions

Configure = Callable[..., None]


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    made = LocalIssuer("localhost")  # another site than 127.0.0.1
    yield made
    made.close()


@pytest.fixture
def configure(configured: Configure) -> Configure:
    def configure(**more: str) -> None:
        configured(**{"oidc_client_id": "mlaas-web", **more})

    configure()
    return configure


@pytest.fixture
def url(configure: Configure, issuer: LocalIssuer, served: Callable[[str], str]) -> str:
    Catalog(shared()).entries.change("models", Catalog(shared()).entry("models", "minilm").name, {"visibility": "private", "owner": "ada"})
    url = served("catalog")
    issuer.redirect_uris = [f"{url}/web/login/callback"]
    return url


def begin(browser: requests.Session, url: str, back: str = "/web/tasks") -> str:
    """Begin a login; the issuer's address that it leads to."""
    answer = browser.get(f"{url}/web/login/issuer", params={"next": back}, allow_redirects=False)
    assert answer.status_code == 303, answer.text
    return answer.headers["Location"]


def approve(where: str) -> str:
    """Log in at the issuer; where it sends the browser back to."""
    answer = requests.get(f"{where}&approved=1", allow_redirects=False)
    assert answer.status_code == 302, answer.text
    return answer.headers["Location"]


def come_back(browser: requests.Session, where: str) -> requests.Response:
    return browser.get(where, allow_redirects=False)


def refused(answer: requests.Response, status: int, said: str) -> None:
    """It opened nothing, and says why in a page without anything of the inside."""
    assert (answer.status_code, said in answer.text) == (status, True), answer.text
    assert sessions.COOKIE not in answer.cookies
    assert "Log in at localhost" in answer.text
    assert "Traceback" not in answer.text
    assert "error_id" not in answer.text


def test_who_logs_in_at_the_issuer_has_a_session_of_the_same_role_and_groups(url: str, issuer: LocalIssuer) -> None:
    issuer.claims = {"groups": ["ml-users"]}
    browser = requests.Session()
    assert "Log in at localhost" in browser.get(f"{url}/web/login").text
    where = begin(browser, url)
    asked = dict(parse_qsl(urlsplit(where).query))
    assert (asked["response_type"], asked["client_id"], asked["code_challenge_method"]) == ("code", "mlaas-web", "S256")
    assert min(len(asked[name]) for name in ("state", "nonce", "code_challenge")) == 43
    answer = come_back(browser, approve(where))
    assert (answer.status_code, answer.headers["Location"]) == (303, "/web/tasks")
    assert browser.get(f"{url}/web/tasks").status_code == 200
    assert browser.get(f"{url}/web/train").status_code == 403
    assert "minilm" in browser.get(f"{url}/web/models").text, "what is ada's"
    assert issuer.asked.count("/realms/test/token") == 1


def test_both_cookies_are_kept_from_scripts_and_sent_where_they_have_to_be(url: str, issuer: LocalIssuer) -> None:
    browser = requests.Session()
    first = browser.get(f"{url}/web/login/issuer", allow_redirects=False)
    answer = come_back(browser, approve(first.headers["Location"]))
    kept, session = first.headers["Set-Cookie"], answer.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Lax", "Path=/web/login"} <= {part.strip() for part in kept.split(";")}
    assert {"HttpOnly", "SameSite=Lax", "Path=/web"} <= {part.strip() for part in session.replace(", ", ";").split(";")}
    assert "Secure" not in kept + session
    assert "mlaas_login" not in browser.cookies, "it is removed by what comes back"
    function = serve.create_app(serve.load_function(web_platform.FUNCTIONS / "catalog"), serve.State(ready=True)).test_client()
    secure = function.get("/web/login/issuer", headers={"X-Forwarded-Proto": "https", "X-Forwarded-Host": "ml.example"})
    assert "Secure" in secure.headers["Set-Cookie"]
    assert parse_qs(urlsplit(secure.headers["Location"]).query)["redirect_uri"] == ["https://ml.example/web/login/callback"]


def test_another_state_than_this_browsers_is_refused(url: str, issuer: LocalIssuer) -> None:
    browser = requests.Session()
    back = approve(begin(browser, url))
    refused(come_back(browser, back.replace("state=", "state=x")), 401, "not begun in this browser")
    refused(come_back(browser, back), 401, "not begun in this browser")  # whatever came back ended the login
    refused(come_back(requests.Session(), back), 401, "not begun in this browser")
    refused(come_back(requests.Session(), f"{url}/web/login/callback"), 401, "not begun in this browser")
    other = requests.Session()
    begin(other, url)
    refused(come_back(other, back), 401, "not begun in this browser")  # somebody else's login, which a link would put into this browser
    assert "/realms/test/token" not in issuer.asked


def test_a_login_that_took_too_long_is_refused(url: str, issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = requests.Session()
    back = approve(begin(browser, url))
    cookies = dict(browser.cookies)
    monkeypatch.setattr(time, "time", lambda was=time.time: was() + issuer_pages.SECONDS + 2)
    refused(requests.get(back, cookies=cookies, allow_redirects=False), 401, "not begun in this browser")


def test_a_code_that_was_used_is_refused(url: str, issuer: LocalIssuer) -> None:
    browser = requests.Session()
    back = approve(begin(browser, url))
    cookies = dict(browser.cookies)
    assert come_back(browser, back).status_code == 303
    refused(requests.get(back, cookies=cookies, allow_redirects=False), 401, "used, or is too old")


def test_a_code_for_another_verifier_is_refused(url: str, issuer: LocalIssuer) -> None:
    browser = requests.Session()
    where = urlsplit(begin(browser, url))
    other = base64.urlsafe_b64encode(hashlib.sha256(b"of somebody else").digest()).rstrip(b"=").decode()
    asked = {**dict(parse_qsl(where.query)), "code_challenge": other}
    refused(come_back(browser, approve(where._replace(query=urlencode(asked)).geturl())), 401, "used, or is too old")


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"nonce": "of another login"}, "not the answer to this login"),
        ({"nonce": None}, "not the answer to this login"),
        ({"aud": "mlaas"}, "another audience"),
        ({"aud": "another", "azp": "another"}, "another audience"),
        ({"aud": ["mlaas-web", "another"], "azp": "another"}, "another client"),
        ({"exp": time.time() - 3600}, "expired"),
        ({"exp": 10**400}, "not one of the configured issuer"),
        ({"exp": None}, "not one of the configured issuer"),
        ({"iss": "https://elsewhere.example"}, "another issuer"),
        ({"sub": None}, "could be known"),
        ({"kid": "made-up"}, "none of the issuer"),
        ({"algorithm": "HS256", "key": "k" * 32}, "not one of the configured issuer"),
    ],
)
def test_an_id_token_that_is_not_for_this_login_opens_nothing(url: str, issuer: LocalIssuer, claims: dict[str, Any], said: str) -> None:
    issuer.claims = claims
    browser = requests.Session()
    refused(come_back(browser, approve(begin(browser, url))), 401, said)
    assert browser.get(f"{url}/web/tasks", allow_redirects=False).status_code == 303


def test_an_issuer_that_is_away_is_said_in_a_page_with_when_to_try_again(
    url: str, issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = requests.Session()
    issuer.away = True
    answer = browser.get(f"{url}/web/login/issuer", allow_redirects=False)
    refused(answer, 503, "The issuer does not answer as it should")
    assert answer.headers["Retry-After"] == "5"
    issuer.away = False
    monkeypatch.setattr(oidc._issuer(issuer.url), "_not_before", 0.0)
    back = approve(begin(browser, url))
    issuer.away = True
    refused(come_back(browser, back), 503, "The issuer does not answer as it should")
    assert browser.post(f"{url}/web/login", data={"token": "t"}, allow_redirects=False).status_code == 303, "the token is good as ever"


def test_who_does_not_log_in_at_the_issuer_is_told_so_without_its_text(url: str, issuer: LocalIssuer) -> None:
    browser = requests.Session()
    state = parse_qs(urlsplit(begin(browser, url)).query)["state"][0]
    query = {"error": "access_denied", "error_description": "<script>no</script>", "state": state, "code": "x"}
    answer = browser.get(f"{url}/web/login/callback", params=query, allow_redirects=False)
    refused(answer, 401, "The issuer did not log you in")
    assert "script>no" not in answer.text


@pytest.mark.parametrize("ways", [["client_secret_basic"], ["client_secret_post"], None])
def test_a_client_with_a_secret_shows_it_as_the_issuer_asks(
    url: str, issuer: LocalIssuer, configure: Configure, ways: list[str] | None
) -> None:
    issuer.secret = "s/e:c"
    issuer.more = {"token_endpoint_auth_methods_supported": ways} if ways else {}
    browser = requests.Session()
    refused(come_back(browser, approve(begin(browser, url))), 503, "does not take this platform as its client")
    configure(oidc_client_secret="s/e:c")
    if ways != ["client_secret_post"]:
        issuer.secret = "s%2Fe%3Ac"  # as RFC 6749 has it in a header
    assert come_back(browser, approve(begin(browser, url))).status_code == 303
    assert "s/e:c" not in repr(settings.current())


@pytest.mark.parametrize("back", ["https://evil.example/web/", "//evil.example", "/web/\\evil", "/v1/models", "javascript:alert(1)", ""])
def test_a_login_leads_to_no_other_site(url: str, issuer: LocalIssuer, back: str) -> None:
    browser = requests.Session()
    assert come_back(browser, approve(begin(browser, url, back))).headers["Location"] == "/web/"


@pytest.mark.parametrize("endpoint", ["javascript:alert(1)", "ftp://localhost/authorize", "/authorize", "http://[", None])
def test_an_issuers_address_that_is_none_is_not_gone_to(url: str, issuer: LocalIssuer, endpoint: str | None) -> None:
    issuer.more = {"authorization_endpoint": endpoint}
    answer = requests.get(f"{url}/web/login/issuer", allow_redirects=False)
    refused(answer, 503, "authorization_endpoint")


def test_a_session_is_over_with_its_id_token(url: str, issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = requests.Session()
    come_back(browser, approve(begin(browser, url)))
    assert "minilm" in browser.get(f"{url}/web/models").text
    browser.close()  # a kept connection would be as old as the clock says, and be closed for it
    monkeypatch.setattr(time, "time", lambda was=time.time: was() + 301)
    assert "minilm" not in browser.get(f"{url}/web/models").text


def log_out(browser: requests.Session, url: str) -> requests.Response:
    page = browser.get(f"{url}/web/").text
    proof = page.partition('name="csrf" value="')[2].partition('"')[0]
    return browser.post(f"{url}/web/logout", data={"csrf": proof}, allow_redirects=False)


def test_logging_out_ends_the_session_here_and_leads_to_where_it_ends_at_the_issuer(url: str, issuer: LocalIssuer) -> None:
    browser = requests.Session()
    come_back(browser, approve(begin(browser, url)))
    answer = log_out(browser, url)
    query = urlencode({"client_id": "mlaas-web", "post_logout_redirect_uri": f"{url}/web/"}).replace("&", "&amp;")
    assert f'content="0; url={issuer.url}/logout?{query}"' in answer.text
    assert sessions.COOKIE not in browser.cookies
    assert "Log out</button>" not in answer.text
    by_token = requests.Session()
    by_token.post(f"{url}/web/login", data={"token": "t"})
    assert log_out(by_token, url).headers["Location"] == "/web/"
    issuer.more = {"end_session_endpoint": None}
    oidc._issuer.cache_clear()
    come_back(browser, approve(begin(browser, url)))
    assert log_out(browser, url).headers["Location"] == "/web/"


def test_without_a_client_the_form_with_a_token_is_the_only_one(url: str, issuer: LocalIssuer, configure: Configure) -> None:
    configure(oidc_client_id="")
    page = requests.get(f"{url}/web/login").text
    assert "Log in at" not in page
    assert 'name="token"' in page
    assert [requests.get(f"{url}/web/login/{path}").status_code for path in ("issuer", "callback")] == [404, 404]
    assert issuer.asked == []


@pytest.mark.parametrize(
    "environ",
    [
        {"MLAAS_OIDC_CLIENT_ID": "mlaas-web"},
        {"MLAAS_OIDC_REDIRECT_URI": "http://ml.example/web/login/callback"},
        {"MLAAS_OIDC_REDIRECT_URI": "https://ml.example/elsewhere"},
    ],
)
def test_settings_that_cannot_be_meant_stop_the_start(environ: dict[str, str]) -> None:
    with pytest.raises(BadSetting, match="MLAAS_OIDC"):
        load(environ)


def test_the_address_to_come_back_to_can_be_set(url: str, configure: Configure) -> None:
    configure(oidc_redirect_uri="https://ml.example/web/login/callback")
    asked = parse_qs(urlsplit(begin(requests.Session(), url)).query)
    assert asked["redirect_uri"] == ["https://ml.example/web/login/callback"]
