"""The one HTTP port: what it lets through to a function."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

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
