"""The one HTTP port: what it lets through to a function."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mlaas.errors import NotFound, StoreAway
from mlaas.local.gateway import create_app


class Recorder:
    """Stands in for a function's process."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bytes]] = []

    def ask(self, method: str, path: str, *, body: Any, **_: Any) -> Any:
        self.asked.append((method, path, body if isinstance(body, bytes) else body.read()))
        return SimpleNamespace(data=b"", status=204, headers={})


@pytest.mark.parametrize(
    ("function", "size", "status"), [("catalog", 500, 204), ("catalog", 501, 413), ("classify", 101, 413), ("classify", 100, 204)]
)
def test_a_body_may_be_as_large_as_its_function_takes(function: str, size: int, status: int) -> None:
    functions = {"catalog": Recorder(), "classify": Recorder()}
    client = create_app(functions, dict, lambda _: None, 100, large={"catalog": 500}).test_client()  # type: ignore[arg-type]
    assert client.post(f"/{function}/v1/x?y=1", data=b"b" * size).status_code == status
    assert functions[function].asked == ([("POST", "/v1/x?y=1", b"b" * size)] if status == 204 else [])


def test_the_web_app_has_an_address_of_its_own_to_which_browsers_are_sent() -> None:
    catalog = Recorder()
    client = create_app({"catalog": catalog}, lambda: {"functions": {}}, lambda _: None, 100).test_client()  # type: ignore[dict-item]
    for path in ("/web", "/web/", "/web/models/a?version=2"):
        client.get(path)
    assert [path for _, path, _ in catalog.asked] == ["/web/", "/web/", "/web/models/a?version=2"]
    sent = client.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (sent.status_code, sent.headers["Location"]) == (303, "/web/")
    for accept in ("*/*", "application/json"):
        assert client.get("/", headers={"Accept": accept}).json == {"functions": {}}


def test_changes_reach_a_function_by_their_own_method() -> None:
    catalog = Recorder()
    client = create_app({"catalog": catalog}, dict, lambda _: None, 100).test_client()  # type: ignore[dict-item]
    client.patch("/catalog/v1/models/a", data=b"{}")
    assert catalog.asked == [("PATCH", "/v1/models/a", b"{}")]


def test_a_browser_asks_the_function_itself_which_sites_it_lets_in() -> None:
    catalog = Recorder()
    client = create_app({"catalog": catalog}, dict, lambda _: None, 100).test_client()  # type: ignore[dict-item]
    client.options("/catalog/v1/models/a", headers={"Origin": "https://a.example"})
    assert catalog.asked == [("OPTIONS", "/v1/models/a", b"")]


def owner_of(name: str) -> str:
    if name == "away":
        raise StoreAway("the document store is away", retry_after=7)
    if name != "mine":
        raise NotFound("the catalog has no such model", field="model", remedy="Name another.")
    return "fill_mask"


@pytest.fixture
def one_address() -> tuple[Any, dict[str, Recorder]]:
    functions = {"embed": Recorder(), "fill-mask": Recorder()}
    return create_app(functions, dict, lambda _: None, 100, owner_of=owner_of).test_client(), functions  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "path", "function", "where"),
    [
        ("POST", "/v1/embeddings", "embed", "/v1/embeddings"),
        ("GET", "/v1/models/minilm%3A2", "embed", "/v1/models/minilm%3A2"),
        ("GET", "/v1", "embed", "/v1"),
        ("GET", "/v2/models/mine", "fill-mask", "/v2/models/mine"),
        ("GET", "/v2/models/mine/versions/3/ready", "fill-mask", "/v2/models/mine/versions/3/ready"),
        ("POST", "/v2/models/mine/infer?x=1", "fill-mask", "/v2/models/mine/infer?x=1"),
    ],
)
def test_a_request_in_a_protocol_of_all_models_reaches_the_function_that_serves_it(
    one_address: tuple[Any, dict[str, Recorder]], method: str, path: str, function: str, where: str
) -> None:
    client, functions = one_address
    assert client.open(path, method=method, data=b"" if method == "GET" else b"{}").status_code == 204
    assert [(one, asked[1]) for one, recorder in functions.items() for asked in recorder.asked] == [(function, where)]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/yours", 404),
        ("POST", "/v2/models/away/infer", 503),
        ("GET", "/v2/models", 404),
        ("POST", "/v2/models/mine/infer", 413),
    ],
)
def test_what_is_refused_before_a_function_is_asked_is_said_in_the_protocols_form(
    one_address: tuple[Any, dict[str, Recorder]], method: str, path: str, status: int
) -> None:
    client, _ = one_address
    answer = client.open(path, method=method, data=b"x" * (101 if status == 413 else 0))
    assert (answer.status_code, list(answer.json)) == (status, ["error"])
    assert answer.headers.get("Retry-After") == ("7" if status == 503 else None)
    if status == 413:
        error = client.post("/v1/embeddings", data=b"x" * 101).json["error"]
        assert (error["type"], error["param"]) == ("invalid_request_error", None)


def test_the_gateway_itself_says_that_it_is_there(one_address: tuple[Any, dict[str, Recorder]]) -> None:
    client, functions = one_address
    assert client.get("/v2").json["name"] == "mlaas"
    assert client.get("/v2/health/live").json["live"] is True
    assert client.get("/v2/health/ready").json["ready"] is True
    assert not any(recorder.asked for recorder in functions.values())
