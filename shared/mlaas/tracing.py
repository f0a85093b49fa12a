"""W3C Trace Context: which trace a piece of work belongs to, and how the next one is told.

`span` names a piece of work; inside it `traceparent()` is what an event or a request that it sends carries. Ids are made and
passed on always, so that a chain of events is one trace whoever of them is listened to; a finished span is handed to
the function given to `export_to`, if there is one (see `mlaas.trace_export`), and forgotten otherwise.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Parent", "Span", "adopt", "current", "export_to", "parse", "record", "span", "traceparent"]

Kind = Literal["internal", "server", "producer", "consumer"]

# https://www.w3.org/TR/trace-context/#traceparent-header; a version after 00 may append fields.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII | re.DOTALL)
_LONGEST = 512


@dataclass(frozen=True)
class Parent:
    """What a traceparent says: ids in hexadecimal, and whether its sender may have recorded the trace."""

    trace_id: str
    span_id: str
    sampled: bool


@dataclass(slots=True)
class Span:
    """A piece of work. Times are nanoseconds since 1970; `ended` is 0 while it lasts; `error` is the class of what it failed with.

    One that is not `exported` when it ends leaves no trace but the ids that it gave.
    """

    name: str
    kind: Kind
    trace_id: str
    parent: Parent | None
    remote: bool
    started: int
    span_id: str = field(default_factory=lambda: os.urandom(8).hex())
    sampled: bool = True
    ended: int = 0
    error: str | None = None
    exported: bool = True
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def traceparent(self) -> str:
        """What work that this one causes carries."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


_current: ContextVar[Span | None] = ContextVar("mlaas_span", default=None)
_export: list[Callable[[Span], None]] = []


def parse(text: object) -> Parent | None:
    """What a traceparent says; None unless it is well formed."""
    found = _TRACEPARENT.fullmatch(text) if isinstance(text, str) and len(text) <= _LONGEST else None
    if not found or (found[1] == "00" and found[5]):
        return None
    return Parent(found[2], found[3], bool(int(found[4], 16) & 1))


def current() -> Span | None:
    """The span that this thread (or task) is in."""
    return _current.get()


def traceparent(cause: object = None) -> str | None:
    """What goes with something that is sent now because of `cause`, a traceparent: the current span's unless it is of another trace."""
    span, parent = _current.get(), parse(cause)
    if span and (parent is None or parent.trace_id == span.trace_id):
        return span.traceparent
    return str(cause) if parent else None


@contextmanager
def span(
    name: str, *, kind: Kind = "internal", parent: object = None, started: int | None = None, attributes: Mapping[str, Any] | None = None
) -> Iterator[Span]:
    """A piece of work: a child of the traceparent `parent` if that is well formed, else of the current span, else a trace's first."""
    one = _new(name, kind, parse(parent), started or time.time_ns(), attributes)
    token = _current.set(one)
    try:
        yield one
    except BaseException as error:
        one.error = type(error).__name__
        raise
    finally:
        _current.reset(token)
        _end(one, time.time_ns())


def adopt(parent: object, *, otherwise: str | None = None) -> None:
    """Make the current span a child of the traceparent `parent`; without one, if it has no parent, the first of the trace `otherwise`.

    For what arrives with its parent inside: to be called before anything is done in the span. `otherwise` is 32 hexadecimal digits.
    """
    one, found = _current.get(), parse(parent)
    if one and found:
        one.trace_id, one.parent, one.sampled, one.remote = found.trace_id, found, found.sampled, True
    elif one and not one.parent and otherwise:
        one.trace_id = otherwise


def record(name: str, started: int, ended: int, attributes: Mapping[str, Any] | None = None) -> None:
    """A child of the current span that has ended already; times in nanoseconds since 1970."""
    if _current.get() and _export:
        _end(_new(name, "internal", None, started, attributes), ended)


def export_to(export: Callable[[Span], None] | None) -> None:
    """Hand every span that ends from now on to `export`, which must neither wait nor raise."""
    _export[:] = [export] if export else []


def _new(name: str, kind: Kind, parent: Parent | None, started: int, attributes: Mapping[str, Any] | None) -> Span:
    around, remote = _current.get(), parent is not None
    if parent is None and around:
        parent = Parent(around.trace_id, around.span_id, around.sampled)
    trace_id = parent.trace_id if parent else os.urandom(16).hex()
    sampled = parent.sampled if parent else True
    return Span(name, kind, trace_id, parent, remote, started, sampled=sampled, attributes=dict(attributes or {}))


def _end(one: Span, ended: int) -> None:
    one.ended = max(ended, one.started)  # a clock may be set back meanwhile
    for export in _export:
        if one.sampled and one.exported:
            export(one)
