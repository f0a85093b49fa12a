"""What every function serves, as a WSGI application that needs no Flask: requests to `/`, health and metrics.

Flask takes as long to import as ONNX Runtime and numpy together, so whatever else is asked for (other paths and methods) is answered
by the Flask application of `serve.create_app`, which is made when the first such request comes.
"""

from __future__ import annotations

import io
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from . import metrics, timing
from .errors import MlaasError, Overloaded, Unavailable
from .runtime import Response, problem_response

if TYPE_CHECKING:
    import flask


__all__ = ["Front", "Request", "State", "invoke", "readiness", "scrape"]

_TEXT = {"Content-Type": "text/plain; charset=utf-8"}

log = logging.getLogger("mlaas")


@dataclass
class State:
    """Whether the process may get requests, and how many it has."""

    ready: bool = False
    stopping: bool = False
    in_flight: int = 0
    waiting_limit: int = 256
    waiting_seconds: float = math.inf
    dispatcher: Any = None
    started_after: float | None = None  # seconds from the process' start to readiness, until the first answer takes it
    lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self) -> None:
        """Count a request in. Raises Overloaded while too many wait, and for one that has waited too long."""
        waiting = len(self.dispatcher.queue) if self.dispatcher else 0
        if waiting > self.waiting_limit or timing.waited() > self.waiting_seconds:
            metrics.OVERLOADED.add()
            raise Overloaded("too many requests are waiting for this function", retry_after=1, remedy="Send the request again in a second.")
        with self.lock:
            self.in_flight += 1

    def leave(self) -> None:
        """Count a request out."""
        with self.lock:
            self.in_flight -= 1

    def answered(self, seconds: float) -> None:
        """After the first answer that succeeded, which took `seconds`: say how long the cold start was.

        The time between readiness and that request is left out: a process that is kept ready for an hour has not been slow.
        """
        with self.lock:
            before, self.started_after = self.started_after, None
        if before is not None:
            metrics.COLD_START_SECONDS.observe(before + seconds)
            fields = {"seconds": round(before + seconds, 3), "ready_after": round(before, 3)}
            log.info("function.first_answer", extra={"fields": fields})


class Headers(Mapping[str, str]):
    """The headers of a request: names in any case, as WSGI gives them."""

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._values: dict[str, str] = {
            name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")
        }
        for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            if value := environ.get(name):
                self._values[name.replace("_", "-").lower()] = value

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class Request:
    """What the runtime reads of a request. Whatever else of a Flask request a function asks for, a Flask request says."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ, self.method, self.headers = environ, environ["REQUEST_METHOD"], Headers(environ)
        self.content_length = int(environ.get("CONTENT_LENGTH") or 0)

    def get_data(self) -> bytes:
        """The body."""
        return self._body

    @cached_property
    def _body(self) -> bytes:
        return bytes(self.environ["wsgi.input"].read(self.content_length))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._whole, name)

    @cached_property
    def _whole(self) -> flask.Request:
        from flask import Request as Whole

        return Whole({**self.environ, "wsgi.input": io.BytesIO(self._body)})


@dataclass(frozen=True)
class Context:
    """What a function's `main` is called with, as by parliament."""

    request: Any
    cloud_event: None = None


class Front:
    """The WSGI application around a function; `rest` makes the Flask application for what is not answered here."""

    def __init__(self, function: ModuleType, state: State, rest: Callable[[], flask.Flask]) -> None:
        self._function, self._state, self._make = function, state, rest
        self._making = threading.Lock()
        self._answers: dict[tuple[str, str], Callable[[Request], Response]] = {
            ("POST", "/"): self._invoke,
            ("GET", "/"): self._invoke,
            ("GET", "/health/liveness"): lambda _: (b"OK", 200, _TEXT),
            ("GET", "/health/readiness"): lambda _: readiness(state),
            ("GET", "/metrics"): lambda _: scrape(),
        }

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        answer = self._answers.get((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        if answer is None:
            return self._rest(environ, start_response)
        body, status, headers = answer(Request(environ))
        length = {} if status == 204 else {"Content-Length": str(len(body))}
        start_response(f"{status} {HTTPStatus(status).phrase}", list({**headers, **length}.items()))
        return [body]

    def _invoke(self, request: Request) -> Response:
        return cast("Response", invoke(self._function, self._state, request, self._plain))

    def _plain(self, answer: Any) -> Response:
        """What a function of somebody's own gives, a str or a dict for example, as Flask understands it."""
        if isinstance(answer, tuple) and len(answer) == 3 and isinstance(answer[0], bytes):
            return cast("Response", answer)
        response = self._rest.make_response(answer)
        return response.get_data(), response.status_code, dict(response.headers)

    @cached_property
    def _made(self) -> flask.Flask:
        return self._make()

    @property
    def _rest(self) -> flask.Flask:
        with self._making:
            return self._made


def invoke(function: ModuleType, state: State, request: Any, plain: Callable[[Any], Any]) -> Any:
    """The answer of a function's `main` to a request to `/`, made `plain`; counted, and refused while too many wait."""
    try:
        state.enter()
    except MlaasError as error:
        return problem_response(error)
    started = time.perf_counter()
    try:
        answer = plain(function.main(Context(request)))
        status, headers = answer[1:] if isinstance(answer, tuple) else (answer.status_code, answer.headers)
        if request.method == "POST" and status < 400 and not headers.get("ce-type", "").endswith(".failed.v1"):
            state.answered(time.perf_counter() - started)
        return answer
    finally:
        state.leave()


def readiness(state: State) -> Response:
    """Whether the function may get requests."""
    if state.stopping or not state.ready:
        return problem_response(Unavailable("the function is stopping" if state.stopping else "the model is being loaded", retry_after=1))
    return b"OK", 200, _TEXT


def scrape() -> Response:
    """Everything measured so far."""
    return metrics.render(), 200, {"Content-Type": metrics.CONTENT_TYPE}
