"""The one HTTP port in front of everything: the functions, the Broker's ingress, and what runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import flask
from cloudevents.http import CloudEvent

from .. import events, http_server, protocols
from ..errors import MlaasError, NotFound, Unavailable
from ..metrics import CONTENT_TYPE
from ..runtime import check_size, problem_response
from .processes import Process

__all__ = ["create_app", "serve"]

ARRIVAL_SECONDS = 600.0  # of an upload; each function keeps to its own time
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}


def create_app(
    functions: Mapping[str, Process],
    state: Callable[[], Any],
    publish: Callable[[CloudEvent], None],
    limit: int,
    metrics: Callable[[], bytes] = lambda: b"",
    large: Mapping[str, int] = MappingProxyType({}),
    owner_of: Callable[[str], str] | None = None,
) -> flask.Flask:
    """The WSGI application; a body may have `limit` bytes, and that for a function of `large` as many as are said there.

    `owner_of` says which function serves a model, for requests by the Open Inference Protocol.
    """
    app = flask.Flask("mlaas.gateway")
    nothing = NotFound("there is nothing at this path", remedy="GET / lists what there is.")
    app.register_error_handler(MlaasError, problem_response)
    app.register_error_handler(404, lambda _: problem_response(nothing))
    app.add_url_rule("/", "index", lambda: flask.redirect("/web/", 303) if _is_browser(flask.request) else state())
    app.add_url_rule("/metrics", "metrics", lambda: (metrics(), 200, {"Content-Type": CONTENT_TYPE}))
    app.add_url_rule("/healthz", "healthz", lambda: {"status": "ok"})

    def body(function: str = "") -> Any:
        if function in large and (flask.request.content_length or 0) > limit:
            check_size(flask.request, large[function])
            return flask.request.stream
        check_size(flask.request, limit)
        return flask.request.get_data()

    @app.post("/broker")
    def ingress() -> tuple[str, int]:
        publish(events.from_request(dict(flask.request.headers), body()))
        return "", 202

    @app.route("/<name>", methods=METHODS, strict_slashes=False)
    @app.route("/<name>/<path:path>", methods=METHODS)
    def function(name: str, path: str = "") -> tuple[bytes, int, list[tuple[str, str]]]:
        process, request = functions.get(name.replace("_", "-")), flask.request
        if process is None:
            raise NotFound(f"there is no function {name[:50]}", remedy=f"There are {', '.join(sorted(functions))}.")
        where = f"/{quote(path)}?{request.query_string.decode('latin-1')}".removesuffix("?")
        headers = {"X-Forwarded-Host": request.host, **dict(_end_to_end(request.headers))}
        answer = process.ask(request.method, where, body=body(name), headers=headers, decode_content=False, timeout=300.0)
        return answer.data, answer.status, _end_to_end(answer.headers)

    @app.route("/web", methods=METHODS, strict_slashes=False)
    @app.route("/web/<path:path>", methods=METHODS)
    def web(path: str = "") -> tuple[bytes, int, list[tuple[str, str]]]:
        return function("catalog", f"web/{path}")

    if owner_of:
        _speak(app, function, owner_of)
    return app


def _speak(app: flask.Flask, function: Callable[[str, str], Any], owner_of: Callable[[str], str]) -> None:
    """One address for every model: OpenAI's embeddings are those of embed, and the Open Inference Protocol finds a model's function."""

    @app.route("/v1", methods=METHODS)
    @app.route("/v1/<path:path>", methods=METHODS)
    def openai(path: str = "") -> Any:
        return function("embed", f"v1/{path}".rstrip("/"))

    @app.route("/v2/models/<name>", methods=METHODS)
    @app.route("/v2/models/<name>/<path:path>", methods=METHODS)
    def model(name: str, path: str = "") -> Any:
        return function(owner_of(name), f"v2/models/{name}/{path}".rstrip("/"))

    @app.route("/v2/<path:_>", methods=METHODS)
    def nowhere(_: str) -> Any:
        raise NotFound("there is nothing at this path", remedy="GET /v2, or /v2/models/MODEL with the name of a model.")

    app.add_url_rule("/v2", "server", protocols.server)
    app.add_url_rule("/v2/health/live", "live", lambda: {"live": True})
    app.add_url_rule("/v2/health/ready", "ready", lambda: {"live": True, "ready": True})
    app.after_request(protocols.in_its_form)


def serve(app: flask.Flask, port: int) -> tuple[str, Callable[[], None]]:
    """Serve `app` in a thread: its URL, and how to stop it. Raises Unavailable if the port is taken."""
    try:  # waitress takes any body, and the application refuses a large one with a problem that a client can read
        server = http_server.create(app, seconds=ARRIVAL_SECONDS, host="127.0.0.1", port=port, threads=32, channel_timeout=630)
    except OSError:
        raise Unavailable(f"port {port} is taken", remedy="Stop what listens on it, or choose another: mlaas up --port 8081.") from None
    thread = threading.Thread(target=server.run, name="gateway", daemon=True)
    thread.start()
    return f"http://127.0.0.1:{server.effective_port}", partial(http_server.stop, server, thread)


def _is_browser(request: flask.Request) -> bool:
    """Whether whoever asks would rather read a page than JSON."""
    return request.accept_mimetypes.best_match(("application/json", "text/html")) == "text/html"


def _end_to_end(headers: Any) -> list[tuple[str, str]]:
    """As pairs: an answer may set more than one cookie."""
    return [(name, value) for name, value in headers.items() if name.lower() not in _HOP_BY_HOP]
