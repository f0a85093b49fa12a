"""The functions behind the gateway's one port, in this process and without Kafka: what the web app's pages speak to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flask

from .. import serve
from ..local import gateway

__all__ = ["FUNCTIONS", "InProcess", "running"]

FUNCTIONS = Path(__file__).parents[3] / "functions"
LIMIT = 1024**2


class InProcess:
    """A function that is asked as the gateway asks a process."""

    def __init__(self, folder: Path) -> None:
        self._app: flask.Flask | None = None
        self._folder = folder

    def state(self) -> dict[str, str]:
        """For the list of functions."""
        return {"state": "running"}

    def ask(self, method: str, path: str, *, body: Any, headers: Mapping[str, str], **_: Any) -> Any:
        """The function's answer to an HTTP request."""
        app = self._app = self._app or serve.create_app(serve.load_function(self._folder), serve.State(ready=True))
        data = body if isinstance(body, bytes) else body.read()
        with app.test_client(use_cookies=False).open(path, method=method, data=data, headers=dict(headers)) as answer:
            return SimpleNamespace(data=answer.data, status=answer.status_code, headers=answer.headers)


@contextmanager
def running(port: int) -> Iterator[str]:
    """Serve all functions at `port`, by the settings of this process; the URL. MLAAS_URL has to say the same."""
    functions: dict[str, Any] = {folder.name.replace("_", "-"): InProcess(folder) for folder in FUNCTIONS.iterdir() if folder.is_dir()}
    url, stop = gateway.serve(gateway.create_app(functions, dict, lambda _: None, LIMIT, large={"catalog": 100 * LIMIT}), port)
    try:
        yield url
    finally:
        stop()
