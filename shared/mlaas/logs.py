"""Logs: one JSON object a line, a constant name with structured fields, and never a text that a user sent.

A line has `time`, `level` and `event`, then its own fields, the fields `bound` around it and those of the process (`of_process`), and
`trace_id` and `span_id` where it was written within a span. An exception adds its `traceback`.
"""

from __future__ import annotations

import json
import logging
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import tracing

__all__ = ["Tail", "bound", "configure", "of_process"]

_bound: ContextVar[Mapping[str, Any]] = ContextVar("mlaas_log_fields", default={})  # noqa: B039 - never changed
_of_process: dict[str, Any] = {}


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        span = tracing.current()
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **_of_process,
            **_bound.get(),
            **getattr(record, "fields", {}),
            **({"trace_id": span.trace_id, "span_id": span.span_id} if span else {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class Tail(logging.Handler):
    """The last lines of this process' log, as objects without tracebacks: for a task to have, where nobody else keeps them."""

    def __init__(self, lines: int = 60) -> None:
        super().__init__()
        self._kept: deque[dict[str, Any]] = deque(maxlen=lines)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        self._kept.append(
            {"time": moment, "level": record.levelname.lower(), "event": record.getMessage(), **getattr(record, "fields", {})}
        )

    def lines(self) -> list[dict[str, Any]]:
        """The oldest first."""
        return list(self._kept)


def configure(file: Path | None = None, *, level: int = logging.INFO) -> None:
    """Send the platform's log to standard error, or to the end of `file`."""
    handler = logging.FileHandler(file, encoding="utf-8") if file else logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logger = logging.getLogger("mlaas")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Lines that are written inside have `fields` too; what is None is left out."""
    token = _bound.set({**_bound.get(), **{name: value for name, value in fields.items() if value is not None}})
    try:
        yield
    finally:
        _bound.reset(token)


def of_process(**fields: Any) -> None:
    """Every line of this process, whichever thread writes it, has `fields` from now on: for one that does one thing, a job."""
    _of_process.update(fields)
