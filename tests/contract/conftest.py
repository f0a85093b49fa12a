"""Each document store and each storage, for the tests of what every one of them promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlaas.documents import Documents, connect
from mlaas.settings import Settings
from mlaas.testing import mongo_server as mongo_server_
from mlaas.testing.memory_documents import MemoryDocuments
from mlaas.testing.s3_server import S3Server


@pytest.fixture(scope="session")
def mongo_server() -> Iterator[str]:
    if not mongo_server_.installed():
        pytest.skip("mongo-java-server is not installed: python -m mlaas.testing.mongo_server install")
    with mongo_server_.running_mongo_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "mongodb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return _url(request, tmp_path)


def _url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "mongodb":
        return f"{request.getfixturevalue('mongo_server')}-{tmp_path.name[-40:].replace('_', '-')}"
    return f"sqlite:///{tmp_path}/documents.sqlite"


@pytest.fixture(params=["sqlite", "mongodb", "memory"])
def documents(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Documents]:
    """Each store, that in memory as well which tests of other modules use in their place."""
    store = MemoryDocuments() if request.param == "memory" else connect(_url(request, tmp_path))
    yield store
    store.close()


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.services)])
def kind(request: pytest.FixtureRequest) -> str:
    """Each storage that files can be put into."""
    return request.param


@pytest.fixture
def settings(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    if kind == "local":
        return Settings(home=tmp_path / "home")
    server: S3Server = request.getfixturevalue("s3_server")
    return Settings(home=tmp_path / "home", s3_endpoint=server.endpoint)
