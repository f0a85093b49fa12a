"""The one HTTP port in front of everything: the functions, the Broker's ingress, and what runs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import flask
import urllib3
import waitress.server
import waitress.wasyncore

from ..errors import MlaasError, NotFound, TooLarge, Unavailable
from ..runtime import Response, problem_response
from .broker import Journal
from .processes import Process
from .records import from_http

__all__ = ["Gateway", "create_app"]

ANSWER_SECONDS = 300.0
_SPOOLED_BYTES = 1024**3  # waitress takes this much and the application refuses it with a problem, which a client can read
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE"]
_HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}


class Gateway:
    """A WSGI server on 127.0.0.1. Raises Unavailable if the port is taken."""

    def __init__(self, port: int) -> None:
        app = flask.Flask("mlaas.gateway")
        self.app = app
        try:
            self._server: Any = waitress.server.create_server(
                app,
                host="127.0.0.1",
                port=port,
                threads=32,
                ident="mlaas",
                max_request_body_size=_SPOOLED_BYTES,
                clear_untrusted_proxy_headers=False,
                channel_timeout=330,
            )
        except OSError:
            raise Unavailable(
                f"port {port} is taken", remedy="Stop what listens on it, or choose another port: mlaas up --port 8081."
            ) from None
        self.url = f"http://127.0.0.1:{self._server.effective_port}"
        self._thread = threading.Thread(target=self._server.run, name="gateway", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Close every connection and the port."""
        if self._thread.is_alive():  # in its own thread, where nothing is being read from what is closed
            self._server.trigger.pull_trigger(lambda: waitress.wasyncore.close_all(self._server._map, ignore_all=True))
            self._thread.join(2.0)
        else:
            self._server.close()
        self._server.task_dispatcher.shutdown(timeout=1)


def create_app(
    app: flask.Flask,
    functions: Mapping[str, Process],
    journal: Journal,
    broker_topic: str,
    state: Callable[[], Any],
    limit: int,
    http: urllib3.PoolManager,
) -> None:
    """Add the routes; a body may have `limit` bytes."""

    def refuse_large() -> None:
        if (flask.request.content_length or 0) > limit:
            raise TooLarge(
                f"the request is larger than {limit} bytes", field="$", remedy="Send fewer texts at once, or a reference to a file."
            )

    @app.errorhandler(MlaasError)
    def problem(error: MlaasError) -> Response:
        return problem_response(error)

    @app.errorhandler(404)
    @app.errorhandler(405)
    def unknown(_error: Exception) -> Response:
        return problem_response(NotFound("there is nothing at this path", remedy="GET / lists what there is."))

    @app.get("/")
    def index() -> Response:
        listed = {name: {"url": f"{flask.request.host_url}{name}", **process.state()} for name, process in functions.items()}
        return _json({**state(), "functions": listed, "broker": f"{flask.request.host_url}broker"})

    @app.get("/healthz")
    def healthz() -> Response:
        return _json({"status": "ok"})

    @app.post("/broker")
    def ingress() -> Response:
        refuse_large()
        event = from_http(flask.request.headers, flask.request.get_data())  # type: ignore[arg-type]
        journal.append(broker_topic, event.record(), patience=5.0)
        return b"", 202, {}

    @app.route("/<name>", defaults={"path": ""}, methods=METHODS, strict_slashes=False)
    @app.route("/<name>/<path:path>", methods=METHODS)
    def function(name: str, path: str) -> Response:
        process = functions.get(name.replace("_", "-"))
        if process is None:
            raise NotFound(f"there is no function {name[:50]}", remedy=f"There are {', '.join(sorted(functions))}.")
        refuse_large()
        with process.use(timeout=30.0) as url:
            return _forward(http, url, path)


def _forward(http: urllib3.PoolManager, url: str, path: str) -> Response:
    """The function's answer to the request at hand."""
    request = flask.request
    query = f"?{request.query_string.decode('latin-1')}" if request.query_string else ""
    try:
        answer = http.request(
            request.method,
            f"{url}/{quote(path)}{query}",
            body=request.get_data(),
            headers=_end_to_end(request.headers),
            timeout=ANSWER_SECONDS,
            retries=False,
            redirect=False,
            decode_content=False,
        )
    except urllib3.exceptions.HTTPError:
        raise Unavailable("the function stopped before it answered", retry_after=1, remedy="Send the request again.") from None
    return answer.data, answer.status, _end_to_end(answer.headers)


def _end_to_end(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}


def _json(body: Any) -> Response:
    return json.dumps(body).encode(), 200, {"Content-Type": "application/json"}
