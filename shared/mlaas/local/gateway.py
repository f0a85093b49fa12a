"""The one HTTP port in front of everything: the functions, the Broker's ingress, and what runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import flask
import urllib3
import waitress.server
import waitress.wasyncore
from cloudevents.http import CloudEvent

from ..errors import MlaasError, NotFound, TooLarge, Unavailable
from ..runtime import problem_response
from .processes import Process
from .records import from_http

__all__ = ["Gateway"]

METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE"]
_HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}


class Gateway:
    """A WSGI server on 127.0.0.1; a body may have `limit` bytes. Raises Unavailable if the port is taken."""

    def __init__(
        self, port: int, limit: int, functions: Mapping[str, Process], state: Callable[[], Any], publish: Callable[[CloudEvent], None]
    ) -> None:
        self._limit, self._functions, self._publish = limit, functions, publish
        self._http = urllib3.PoolManager(32, maxsize=32)
        app = flask.Flask("mlaas.gateway")
        nothing = NotFound("there is nothing at this path", remedy="GET / lists what there is.")
        app.register_error_handler(MlaasError, problem_response)
        app.register_error_handler(404, lambda _: problem_response(nothing))
        app.add_url_rule("/", "index", state)
        app.add_url_rule("/healthz", "healthz", lambda: {"status": "ok"})
        app.add_url_rule("/broker", view_func=self._ingress, methods=["POST"])
        app.add_url_rule("/<name>", view_func=self._function, methods=METHODS, strict_slashes=False)
        app.add_url_rule("/<name>/<path:path>", view_func=self._function, methods=METHODS)
        try:  # waitress takes any body, and the application refuses a large one with a problem that a client can read
            self._server: Any = waitress.server.create_server(app, host="127.0.0.1", port=port, threads=32, channel_timeout=330)
        except OSError:
            raise Unavailable(f"port {port} is taken", remedy="Stop what listens on it, or choose another: mlaas up --port 8081.") from None
        self.url = f"http://127.0.0.1:{self._server.effective_port}"
        self._thread = threading.Thread(target=self._server.run, name="gateway", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close every connection and the port."""
        self._server.trigger.pull_trigger(lambda: waitress.wasyncore.close_all(self._server._map, ignore_all=True))
        self._thread.join(2.0)
        self._server.task_dispatcher.shutdown(timeout=1)
        self._http.clear()

    def _body(self) -> bytes:
        if (flask.request.content_length or 0) > self._limit:
            remedy = "Send fewer texts at once, or a reference to a file."
            raise TooLarge(f"the request is larger than {self._limit} bytes", field="$", remedy=remedy)
        return flask.request.get_data()

    def _ingress(self) -> tuple[str, int]:
        self._publish(from_http(dict(flask.request.headers), self._body()))
        return "", 202

    def _function(self, name: str, path: str = "") -> tuple[bytes, int, dict[str, str]]:
        request, process = flask.request, self._functions.get(name.replace("_", "-"))
        if process is None:
            raise NotFound(f"there is no function {name[:50]}", remedy=f"There are {', '.join(sorted(self._functions))}.")
        query = f"?{request.query_string.decode('latin-1')}" if request.query_string else ""
        options: dict[str, Any] = {"retries": False, "redirect": False, "decode_content": False, "timeout": 300.0}
        with process.use() as url:
            try:
                answer = self._http.request(
                    request.method, f"{url}/{quote(path)}{query}", body=self._body(), headers=_end_to_end(request.headers), **options
                )
            except urllib3.exceptions.HTTPError:
                raise Unavailable("the function stopped before it answered", retry_after=1, remedy="Send the request again.") from None
        return answer.data, answer.status, _end_to_end(answer.headers)


def _end_to_end(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}
