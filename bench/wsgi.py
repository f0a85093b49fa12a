"""The classify function as an application for other servers than ours: `wsgi:app`, for ASGI servers `wsgi:asgi` (bench/servers.py)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mlaas import logs, serve

logs.configure(Path(os.devnull))
app = serve.application(serve.load_function(Path(__file__).parent.parent / "functions" / "classify"), serve.State(ready=True))


def __getattr__(name: str) -> Any:
    if name != "asgi":
        raise AttributeError(name)
    from a2wsgi import WSGIMiddleware

    return WSGIMiddleware(app, workers=int(os.environ["MLAAS_THREADS"]))
