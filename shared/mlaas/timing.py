"""Where a request's time goes, measured without passing anything around.

A request opens a recording; whatever runs inside it, however deep, adds the seconds of its part under a name. The names in
use are `queue`, `load`, `tokenize`, `infer` and `search`. A recording belongs to the thread (or task) that opened it.
Each part is also a child span of the trace. A job, which may last for hours, has `Phases` instead.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from . import tracing

__all__ = ["Phases", "record", "server_timing", "span", "waited", "waited_since"]

PHASE_SPANS = 100  # of one job: a training of a thousand epochs evaluates a thousand times


@dataclass
class _Recording:
    seconds: dict[str, float] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)


_current: ContextVar[_Recording | None] = ContextVar("mlaas_timing", default=None)
_waiting: ContextVar[float | None] = ContextVar("mlaas_waiting", default=None)


@contextmanager
def waited_since(received: float) -> Iterator[None]:
    """The first recording inside counts the time since `received` (time.perf_counter) until it opens as `queue`."""
    token = _waiting.set(received)
    try:
        yield
    finally:
        _waiting.reset(token)


def waited() -> float:
    """Seconds since the time given to `waited_since`; 0 outside of it, and inside a recording."""
    received = _waiting.get()
    return 0.0 if received is None else time.perf_counter() - received


@contextmanager
def record() -> Iterator[dict[str, float]]:
    """Seconds by name of the spans that end before the block does. Inside another recording, the inner one takes them all."""
    recording, received = _Recording(), _waiting.get()
    if received is not None:
        recording.seconds["queue"] = time.perf_counter() - received
        _waiting.set(None)
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
        with tracing.span(name):
            yield
    finally:
        recording.running.discard(name)
        recording.seconds[name] = recording.seconds.get(name, 0.0) + time.perf_counter() - started


def server_timing(spans: Mapping[str, float]) -> str:
    """`spans` (seconds) as the value of the W3C `Server-Timing` header, in milliseconds: `load;dur=12.3, infer;dur=3.1`."""
    return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in spans.items())


@dataclass
class Phases:
    """The phases of a job one after the other: `seconds` by name, and a child of the current span for each, up to PHASE_SPANS."""

    seconds: dict[str, float] = field(default_factory=dict)
    _name: str = ""
    _started: int = 0
    _clock: float = 0.0
    _count: int = 0

    def enter(self, name: str) -> None:
        """The phase `name` goes on, or begins and ends the one before; an empty name only ends it."""
        if name == self._name:
            return
        now, clock = time.time_ns(), time.perf_counter()
        if self._name:
            self.seconds[self._name] = round(self.seconds.get(self._name, 0.0) + clock - self._clock, 3)
            self._count += 1
            if self._count <= PHASE_SPANS:
                tracing.record(self._name, self._started, now)
        self._name, self._started, self._clock = name, now, clock
