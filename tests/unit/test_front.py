from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import werkzeug.test

from mlaas import serve
from mlaas.front import Request

ECHO = """
def main(context):
    request = context.request
    said = [request.method, request.headers.get("CE-Id"), dict(request.headers).get("ce-id"), str(request.content_length), request.get_data()]
    return b"|".join(one if isinstance(one, bytes) else str(one).encode() for one in said), 200, {"Content-Type": "text/plain"}
"""


def client(main: Any, **state: Any) -> werkzeug.test.Client:
    """A client of the application around `main`."""
    return werkzeug.test.Client(serve.application(SimpleNamespace(main=main), serve.State(ready=True, **state)))  # type: ignore[arg-type]


def test_a_function_is_given_method_headers_in_any_case_length_and_body() -> None:
    space: dict[str, Any] = {}
    exec(ECHO, space)
    answer = client(space["main"]).post("/", data=b"body", headers={"ce-id": "7"})
    assert (answer.status_code, answer.data) == (200, b"POST|7|7|4|body")


def test_what_else_a_flask_request_knows_is_there_as_well_after_the_body_was_read() -> None:
    def main(context: Any) -> Any:
        context.request.get_data()
        return {"text": context.request.args["text"], "json": context.request.get_json(), "agent": context.request.user_agent.string}

    answer = client(main).post("/?text=a%20b", json={"n": 1}, headers={"User-Agent": "me"})
    assert answer.json == {"text": "a b", "json": {"n": 1}, "agent": "me"}


@pytest.mark.parametrize("given", ["text", ("text", 201), {"a": 1}, (b"bytes", 200, {"X-Own": "1"})])
def test_whatever_flask_takes_for_an_answer_is_one(given: Any) -> None:
    here, flask = client(lambda _: given), serve.create_app(SimpleNamespace(main=lambda _: given), serve.State(ready=True))  # type: ignore[arg-type]
    ours, theirs = here.post("/"), flask.test_client().post("/")
    assert (ours.status_code, ours.data) == (theirs.status_code, theirs.data)
    assert ours.headers.get("X-Own") == theirs.headers.get("X-Own")


def test_an_answer_without_a_body_says_no_length() -> None:
    answer = client(lambda _: (b"", 204, {})).post("/")
    assert (answer.status_code, answer.data, "Content-Length" in answer.headers) == (204, b"", False)


@pytest.mark.parametrize(
    ("method", "path"), [("HEAD", "/"), ("OPTIONS", "/"), ("PUT", "/"), ("POST", "/health/liveness"), ("GET", "/absent")]
)
def test_other_paths_and_methods_are_answered_as_by_flask(method: str, path: str) -> None:
    function = SimpleNamespace(main=lambda _: (b"{}", 200, {"Content-Type": "application/json"}))
    here = werkzeug.test.Client(serve.application(function, serve.State(ready=True)))  # type: ignore[arg-type]
    flask = serve.create_app(function, serve.State(ready=True)).test_client()  # type: ignore[arg-type]
    ours, theirs = here.open(path, method=method), flask.open(path, method=method)
    assert (ours.status_code, ours.data, ours.headers.get("Allow")) == (theirs.status_code, theirs.data, theirs.headers.get("Allow"))


def test_a_request_without_a_body_has_an_empty_one() -> None:
    environ = werkzeug.test.EnvironBuilder(method="GET").get_environ()
    assert (Request(environ).get_data(), Request(environ).content_length) == (b"", 0)
    assert not hasattr(Request(environ), "no_such_thing")


def test_flask_is_imported_by_the_first_request_that_needs_it() -> None:
    program = """
import sys, types, pathlib
from mlaas import serve
application = serve.application(types.SimpleNamespace(main=lambda _: (b"", 204, {})), serve.State(ready=True))
def get(path):
    import io
    said = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "wsgi.input": io.BytesIO(), "SERVER_NAME": "x", "SERVER_PORT": "1", "wsgi.url_scheme": "http"}
    application(environ, lambda status, headers: said.append(status[:3]))
    return said[0], "flask" in sys.modules
print(get("/"), get("/health/readiness"), get("/health/liveness"), get("/metrics"), get("/absent"))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    assert ran.stdout.strip() == "('204', False) ('200', False) ('200', False) ('200', False) ('404', True)", ran.stderr
