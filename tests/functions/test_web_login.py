"""Who is logged in to the web app, and which forms it takes."""

from __future__ import annotations

import re
import time

import pytest
import requests

from mlaas import serve, settings
from mlaas.settings import Settings
from mlaas.testing import web_platform
from mlaas.testing.web_home import TOKEN
from mlaas.web import session as sessions


def csrf(page: str) -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', page)
    assert found
    return found[1]


def logged_in(url: str) -> requests.Session:
    browser = requests.Session()
    assert browser.post(f"{url}/web/login", data={"token": TOKEN, "next": "/web/models"}).url == f"{url}/web/models"
    return browser


def test_the_token_opens_a_session_that_only_this_hosts_pages_send(web_url: str) -> None:
    answer = requests.post(f"{web_url}/web/login", data={"token": TOKEN}, allow_redirects=False)
    cookie = answer.headers["Set-Cookie"]
    assert answer.status_code == 303
    assert {"HttpOnly", "SameSite=Strict", "Path=/web"} <= {part.strip() for part in cookie.split(";")}
    assert TOKEN not in cookie
    assert "Secure" not in cookie
    function = serve.create_app(serve.load_function(web_platform.FUNCTIONS / "catalog"), serve.State(ready=True)).test_client()
    secure = function.post("/web/login", data={"token": TOKEN}, headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in secure.headers["Set-Cookie"]
    assert "infn-structures" in logged_in(web_url).get(f"{web_url}/web/models").text


@pytest.mark.parametrize("token", ["", "wrong", "è", "None"])
def test_a_wrong_token_opens_nothing(web_url: str, token: str) -> None:
    answer = requests.post(f"{web_url}/web/login", data={"token": token})
    assert answer.status_code == 401
    assert "Set-Cookie" not in answer.headers
    assert 'aria-invalid="true"' in answer.text


@pytest.mark.parametrize(
    "back", ["https://evil.example/web/", "//evil.example/web/", "/web/\\evil", "/v1/models", "javascript:alert(1)", "/web//evil"]
)
def test_a_login_leads_to_no_other_site(web_url: str, back: str) -> None:
    answer = requests.post(f"{web_url}/web/login", data={"token": TOKEN, "next": back}, allow_redirects=False)
    assert answer.headers["Location"] == "/web/"


def test_an_invitation_logs_in_once_and_says_nothing_of_the_token(web_url: str, web_settings: Settings) -> None:
    path = sessions.invitation(web_settings)
    assert TOKEN not in path
    browser = requests.Session()
    assert browser.get(f"{web_url}{path}").status_code == 200
    assert "infn-structures" in browser.get(f"{web_url}/web/models").text
    again = requests.get(f"{web_url}{path}")
    assert (again.status_code, "Set-Cookie" in again.headers) == (401, False)
    assert requests.get(f"{web_url}/web/enter?code=made-up").status_code == 401


def test_a_session_ends_by_another_token_of_the_platform(web_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = logged_in(web_url)
    monkeypatch.setenv("MLAAS_TOKEN", "another")
    settings.current.cache_clear()
    assert "infn-structures" not in browser.get(f"{web_url}/web/models").text


def test_a_session_ends_after_its_time(web_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = logged_in(web_url)
    browser.close()  # a kept connection would be as old as the clock says, and be closed for it
    monkeypatch.setattr(time, "time", lambda was=time.time: was() + sessions.SECONDS + 2)
    assert "infn-structures" not in browser.get(f"{web_url}/web/models").text


def test_a_changed_cookie_is_none(web_url: str) -> None:
    browser = logged_in(web_url)
    value = browser.cookies[sessions.COOKIE]
    browser.cookies.set(sessions.COOKIE, value[:-2] + ("AA" if value[-2:] != "AA" else "BB"), path="/web")
    for cookie in list(browser.cookies):
        if cookie.value == value:
            browser.cookies.clear(cookie.domain, cookie.path, cookie.name)
    assert "infn-structures" not in browser.get(f"{web_url}/web/models").text


def test_a_form_of_another_site_or_session_is_refused(web_url: str) -> None:
    browser, other = logged_in(web_url), logged_in(web_url)
    proof = csrf(browser.get(f"{web_url}/web/").text)
    for data in ({}, {"csrf": "x"}, {"csrf": csrf(other.get(f"{web_url}/web/").text)}):
        assert browser.post(f"{web_url}/web/logout", data=data).status_code == 422
    elsewhere = browser.post(f"{web_url}/web/logout", data={"csrf": proof}, headers={"Sec-Fetch-Site": "cross-site"})
    assert elsewhere.status_code == 422
    assert "infn-structures" in browser.get(f"{web_url}/web/models").text
    browser.post(f"{web_url}/web/logout", data={"csrf": proof})
    assert "infn-structures" not in browser.get(f"{web_url}/web/models").text


def test_without_a_token_of_the_platform_nobody_logs_in(web_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLAAS_TOKEN")
    settings.current.cache_clear()
    assert "the platform has no token" in requests.get(f"{web_url}/web/login").text
    assert requests.post(f"{web_url}/web/login", data={"token": ""}).status_code == 401
