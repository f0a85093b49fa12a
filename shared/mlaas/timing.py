"""Where a request's time goes, measured without passing anything around.

A request opens a recording; whatever runs inside it, however deep, adds the seconds of its part under a name. The names in
use are `load`, `tokenize`, `infer` and `search`. A recording belongs to the thread (or task) that opened it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

__all__ = ["record", "server_timing", "span"]


@dataclass
class _Recording:
    seconds: dict[str, float] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)


_current: ContextVar[_Recording | None] = ContextVar("mlaas_timing", default=None)


@contextmanager
def record() -> Iterator[dict[str, float]]:
    """Seconds by name of the spans that end before the block does. Inside another recording, the inner one takes them all."""
    recording = _Recording()
    token = _current.set(recording)
    try:
        yield recording.seconds
    finally:
        _current.reset(token)


@contextmanager
def span(name: str) -> Iterator[None]:
    """Add the seconds that the block takes to `name`; inside a span of that name, or outside a recording, nothing is added."""
    recording = _current.get()
    if recording is None or name in recording.running:
        yield
        return
    recording.running.add(name)
    started = time.perf_counter()
    try:
        yield
    finally:
        recording.running.discard(name)
        recording.seconds[name] = recording.seconds.get(name, 0.0) + time.perf_counter() - started


def server_timing(spans: Mapping[str, float]) -> str:
    """`spans` (seconds) as the value of the W3C `Server-Timing` header, in milliseconds: `load;dur=12.3, infer;dur=3.1`."""
    return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in spans.items())
