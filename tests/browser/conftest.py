"""A headless Chromium before the functions, which run behind the gateway's one port."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlaas import settings
from mlaas.catalog_api import oidc
from mlaas.settings import Settings
from mlaas.testing.local_issuer import LocalIssuer
from mlaas.web import session

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
REMEDY = "no Chromium was found: apt-get install chromium (as root), or playwright install chromium"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the guide's pictures are written."""
    parser.addoption("--pictures", metavar="FOLDER", help="take the pictures of docs/web.md, into this folder")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser; tests are skipped, with the remedy, where there is none.

    Not for the whole session: as long as Playwright is there, its event loop counts as running, and no test that awaits could run.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make setup")
    with sync_api.sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        found = next((path for name in NAMES if (path := shutil.which(name))), own if Path(own).is_file() else None)
        if found is None:
            pytest.skip(REMEDY)
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture
def issuer(web_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalIssuer]:
    """An issuer at which people log in: another site than the web app, so that a browser keeps to what a cookie says of that."""
    made = LocalIssuer("localhost")
    made.redirect_uris = [f"{web_settings.url}/web/login/callback"]
    made.claims = {"groups": ["ml-users"]}
    of_issuer = {
        "oidc_issuer": made.url,
        "oidc_audience": "mlaas",
        "oidc_client_id": made.client,
        "oidc_role_map": "*=reader,ml-users=user",
    }
    for name, value in settings.named(**of_issuer).items():
        monkeypatch.setenv(name, value)
    settings.current.cache_clear()
    oidc._issuer.cache_clear()
    yield made
    made.close()


@pytest.fixture
def visit(chromium: Any, web_url: str, web_settings: Settings, request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """A new page of a browser that is logged in: `visit("/web/models", width=390)`; `known=False` for one that is not.

    At its end it has asked no other host for anything but the issuer where there is one, and its console has no error.
    """
    contexts, faults = [], list[str]()
    hosts = (web_url, request.getfixturevalue("issuer").url) if "issuer" in request.fixturenames else (web_url,)

    def open_(path: str, *, known: bool = True, width: int = 1280, **options: Any) -> Any:
        context = chromium.new_context(viewport={"width": width, "height": 844}, base_url=web_url, **options)
        contexts.append(context)
        context.set_default_timeout(20_000)
        context.on("request", lambda asked: faults.append(asked.url) if not asked.url.startswith(hosts) else None)
        page = context.new_page()
        if known:
            page.goto(session.invitation(web_settings))
            page.wait_for_url("**/web/")
        page.on(
            "console", lambda message: faults.append(message.text) if message.type == "error" and "status of" not in message.text else None
        )
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(path)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert faults == []
