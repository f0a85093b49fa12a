"""Fixtures that more than one kind of test uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import parliament.server
import pytest
import werkzeug.test

from mlaas import documents, http_server, models, serve, settings
from mlaas import served as served_counts
from mlaas.catalog_api import oidc, request_counts
from mlaas.local.processes import free_port
from mlaas.settings import Settings
from mlaas.testing import web_platform
from mlaas.testing.homes import tiny_home
from mlaas.testing.local_issuer import LocalIssuer
from mlaas.testing.s3_server import S3Server, credentials, running_s3_server
from mlaas.testing.web_home import TOKEN, web_home

FUNCTIONS = Path(__file__).parent.parent / "functions"


@pytest.fixture(scope="session")
def home_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home with tiny models, made once; tests that change it use `home`."""
    return tiny_home(tmp_path_factory.mktemp("platform"))


@pytest.fixture
def home(home_settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Settings]:
    """This process is configured for a home with tiny models and a document store of its own."""
    copied = tmp_path / "documents.sqlite"
    source = documents.connect(home_settings.documents_url)
    target = documents.connect(f"sqlite:///{copied}")
    for collection in ("models", "indexes"):
        for stored in reversed(source.find(collection, {})):
            target.insert(collection, stored.key, stored.body)
    source.close()
    target.close()
    for name, value in {"MLAAS_HOME": home_settings.home, "MLAAS_DOCUMENTS": f"sqlite:///{copied}"}.items():
        monkeypatch.setenv(name, str(value))
    settings.current.cache_clear()
    models.forget()
    yield settings.current()
    served_counts.forget()
    request_counts.forget()
    documents.shared().close()
    settings.current.cache_clear()


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    """An OpenID Connect issuer."""
    made = LocalIssuer()
    yield made
    made.close()


@pytest.fixture
def configured(home: Settings, issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """This process takes the issuer's tokens, and MLAAS_TOKEN, which is `t`; `configured(name=value)` lets more of its settings be other ones."""

    def configure(**more: Any) -> None:
        values = {"token": "t", "oidc_issuer": issuer.url, "oidc_audience": "mlaas"}
        values |= {"oidc_role_map": "*=reader,ml-users=user,ml-admins=admin", **{name: str(value) for name, value in more.items()}}
        for name, value in settings.named(**values).items():
            monkeypatch.setenv(name, value)
        settings.current.cache_clear()
        oidc._issuer.cache_clear()

    configure()
    return configure


@pytest.fixture
def served() -> Iterator[Callable[[str], str]]:
    """Serve a function over real HTTP, with the limits that it has by the settings, until the test ends: `served("catalog")` is its address."""
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(_serving(serve.load_function(FUNCTIONS / name)))


@contextmanager
def _serving(function: ModuleType) -> Iterator[str]:
    limits = function.routes.limits(settings.current()) if hasattr(function, "routes") else {}
    application = serve.application(function, serve.State(ready=True))
    with http_server.running(application, host="127.0.0.1", port=0, threads=4, **limits) as server:
        yield f"http://127.0.0.1:{server.effective_port}"


@pytest.fixture
def gateway(home: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The functions behind one port, for a home with tiny models; the platform's token is `secret-of-the-test`."""
    where = {"token": "secret-of-the-test", "url": f"http://127.0.0.1:{free_port()}"}
    for name, value in settings.named(**where).items():
        monkeypatch.setenv(name, value)
    settings.current.cache_clear()
    with web_platform.running(int(where["url"].rpartition(":")[2])) as url:
        yield url


@pytest.fixture(scope="module")
def web_made(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home whose web app has something on every page, made once for a module."""
    return web_home(tmp_path_factory.mktemp("web"))


@pytest.fixture
def web_settings(web_made: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """This process is configured for it, and for a gateway that `web_url` starts."""
    where = {"home": str(web_made.home), "token": TOKEN, "url": f"http://127.0.0.1:{free_port()}"}
    for name, value in settings.named(**where).items():
        monkeypatch.setenv(name, value)
    settings.current.cache_clear()
    models.forget()
    yield settings.current()
    documents.shared().close()
    settings.current.cache_clear()


@pytest.fixture
def web_url(web_settings: Settings) -> Iterator[str]:
    """The functions behind one port, as the web app and a browser speak to them."""
    with web_platform.running(int(web_settings.url.rpartition(":")[2])) as url:
        yield url


@pytest.fixture(params=["mlaas.serve", "parliament"])
def client_of(request: pytest.FixtureRequest, home: Settings) -> Callable[[str], Any]:
    """An HTTP client of a function under both servers: `client_of("classify").post("/", ...)`."""

    def client(name: str) -> Any:
        module = serve.load_function(FUNCTIONS / name)
        if request.param == "parliament":
            return parliament.server.create(module).test_client()
        return werkzeug.test.Client(serve.application(module, serve.State(ready=True)))

    return client


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3Server]:
    """A real S3 server with an empty bucket; this process has its credentials, and nobody else's."""
    with running_s3_server() as server, credentials(server):
        yield server
