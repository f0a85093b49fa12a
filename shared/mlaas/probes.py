"""The small HTTP port of a process that serves no requests: /metrics, /health/liveness and /health/readiness."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import flask

from . import http_server, metrics
from .errors import Unavailable
from .runtime import problem_response

__all__ = ["Pulse", "create_app", "serve"]


@dataclass
class Pulse:
    """Whether a loop still turns: it `beat` less than `seconds` ago."""

    seconds: float = 600.0
    _last: float = field(default_factory=time.monotonic)

    def beat(self) -> None:
        """The loop turned once more."""
        self._last = time.monotonic()

    @property
    def alive(self) -> bool:
        """Whether the last beat is recent."""
        return time.monotonic() - self._last < self.seconds


def create_app(pulse: Pulse, *collectors: Any) -> flask.Flask:
    """The WSGI application; at /metrics there is also what `collectors` (Prometheus') collect."""
    app = flask.Flask("mlaas.probes")

    @app.get("/health/liveness")
    @app.get("/health/readiness")
    def health() -> Any:
        return "OK" if pulse.alive else problem_response(Unavailable("the process has stopped to make progress"))

    @app.get("/metrics")
    def scrape() -> Any:
        return metrics.render(*collectors), 200, {"Content-Type": metrics.CONTENT_TYPE}

    return app


def serve(app: flask.Flask, host: str, port: int) -> None:
    """Serve `app` in a thread for as long as the process lives. Raises Unavailable if the port is taken."""
    try:
        server = http_server.create(app, host=host, port=port, threads=2, ident="mlaas")
    except OSError:
        raise Unavailable(f"port {port} cannot be listened on", field="PORT", remedy="Set PORT to a free one.") from None
    threading.Thread(target=server.run, name="probes", daemon=True).start()
