"""Finished spans to a collector over OTLP/HTTP, with OpenTelemetry's SDK, where an endpoint is set.

The SDK takes a third of a second to import: a thread does that when the first span has ended, so that neither the start of
a process nor its first answer waits for it. A collector that is away costs spans, never a request.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from . import __version__, metrics, tracing
from .settings import Settings
from .tracing import Parent, Span

__all__ = ["flush", "start"]

EARLY = 2048  # spans that are kept until the SDK is there
FLUSH_SECONDS = 3.0

log = logging.getLogger("mlaas")


class _Exporter:
    """Takes spans from any thread. `_processor` is the SDK's, once it is there."""

    def __init__(self, service: str, endpoint: str) -> None:
        self._service, self._endpoint = service, endpoint
        self._lock = threading.Lock()
        self._early: deque[Span] = deque()
        self._processor: Any = None
        self._convert: Callable[[Span], Any] = lambda span: span
        self._thread: threading.Thread | None = None
        self._over = False

    def take(self, span: Span) -> None:
        """Export `span`, by and by."""
        with self._lock:
            if self._processor is None:
                if self._over or len(self._early) >= EARLY:
                    metrics.SPANS_DROPPED.add()
                else:
                    self._early.append(span)
                if not self._thread:
                    self._thread = threading.Thread(target=self._set_up, name="trace-export", daemon=True)
                    self._thread.start()
                return
        self._processor.on_end(self._convert(span))

    def close(self, seconds: float) -> None:
        """Export what is left, in at most `seconds`; nothing is taken afterwards."""
        tracing.export_to(None)
        deadline = time.monotonic() + seconds
        if self._thread:
            self._thread.join(seconds)
        if self._processor:
            ending = threading.Thread(target=self._processor.shutdown, daemon=True)
            ending.start()
            ending.join(max(0.0, deadline - time.monotonic()))

    def _set_up(self) -> None:
        try:
            processor, convert = _sdk(self._service, self._endpoint)
        except ImportError:
            self._give_up("tracing.packages_missing", 'Install them with pip install "mlaas[tracing]".')
            return
        except (ValueError, OSError) as error:
            self._give_up("tracing.not_set_up", f"Correct the OTEL_EXPORTER_OTLP_ settings ({type(error).__name__}).")
            return
        with self._lock:
            for span in self._early:
                processor.on_end(convert(span))
            self._early.clear()
            self._convert, self._processor = convert, processor

    def _give_up(self, event: str, remedy: str) -> None:
        log.warning(event, extra={"fields": {"remedy": remedy}})
        with self._lock:
            metrics.SPANS_DROPPED.add(by=len(self._early))
            self._early.clear()
            self._over = True
        tracing.export_to(None)


_exporters: list[_Exporter] = []


def start(service: str, settings: Settings) -> None:
    """Export the spans of this process as those of `service`, if an endpoint is set."""
    endpoint = settings.trace_endpoint
    if not endpoint:
        return
    if not endpoint.startswith(("http://", "https://")):
        remedy = "Set OTEL_EXPORTER_OTLP_ENDPOINT to the URL of an OTLP/HTTP collector, e.g. http://collector:4318."
        log.warning("tracing.endpoint_unusable", extra={"fields": {"remedy": remedy}})
        return
    _exporters[:] = [_Exporter(service, endpoint)]
    tracing.export_to(_exporters[0].take)


def flush(seconds: float = FLUSH_SECONDS) -> None:
    """Export what is left, in at most `seconds`: the process is about to end."""
    while _exporters:
        _exporters.pop().close(seconds)


class _OneWarning(logging.Handler):
    """Whatever the SDK complains about is one line in ten minutes: its own lines are many, unstructured, and name the endpoint."""

    _next = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING and time.monotonic() > self._next:
            self._next = time.monotonic() + 600.0
            log.warning(
                "tracing.export_failed", extra={"fields": {"remedy": "See that the collector is there; requests do not wait for it."}}
            )


def _sdk(service: str, endpoint: str) -> tuple[Any, Callable[[Span], Any]]:
    """The SDK's processor of finished spans, and how a span becomes one of the SDK's. Raises ImportError."""
    from opentelemetry import trace as api
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    theirs = logging.getLogger("opentelemetry")
    theirs.handlers[:], theirs.propagate = [_OneWarning()], False
    resource = Resource.create({"service.name": service, "service.version": __version__})
    scope = InstrumentationScope("mlaas", __version__)

    def context(one: Parent | Span, remote: bool = False) -> Any:
        return api.SpanContext(int(one.trace_id, 16), int(one.span_id, 16), remote, api.TraceFlags(int(one.sampled)))

    def convert(span: Span) -> Any:
        return ReadableSpan(
            span.name,
            context(span),
            context(span.parent, span.remote) if span.parent else None,
            resource,
            {**span.attributes, "error.type": span.error} if span.error else span.attributes,
            kind=api.SpanKind[span.kind.upper()],
            status=api.Status(api.StatusCode.ERROR if span.error else api.StatusCode.UNSET),
            start_time=span.started,
            end_time=span.ended,
            instrumentation_scope=scope,
        )

    return BatchSpanProcessor(OTLPSpanExporter(endpoint)), convert
