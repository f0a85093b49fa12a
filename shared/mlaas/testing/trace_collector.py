"""A stand-in for an OpenTelemetry collector: takes OTLP over HTTP on loopback, and keeps the spans it gets."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Collector", "Got", "collecting"]


@dataclass(frozen=True)
class Got:
    """A span as it came; ids in hexadecimal, times in nanoseconds since 1970, `parent` empty for the first of a trace."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent: str
    started: int
    ended: int
    error: bool
    attributes: Mapping[str, Any]


@dataclass
class Collector:
    """What came so far, and where to send it: `url` is for OTEL_EXPORTER_OTLP_ENDPOINT. While not `open` it answers 503."""

    url: str
    open: bool = True
    spans: list[Got] = field(default_factory=list)
    _arrived: threading.Condition = field(default_factory=threading.Condition)

    def add(self, spans: list[Got]) -> None:
        """Keep `spans`."""
        with self._arrived:
            self.spans += spans
            self._arrived.notify_all()

    def wait_for(self, *names: str, seconds: float = 20.0) -> list[Got]:
        """All spans, once there is one of each name. Raises AssertionError when that takes more than `seconds`."""
        deadline = time.monotonic() + seconds
        with self._arrived:
            while missing := set(names) - {one.name for one in self.spans}:
                left = deadline - time.monotonic()
                assert left > 0, f"no span {sorted(missing)} among {sorted(one.name for one in self.spans)}"
                self._arrived.wait(left)
            return list(self.spans)


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            known = self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
            status = (200 if collector.open else 503) if known else 404
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            if status == 200:
                collector.add(_spans(body))

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _spans(body: bytes) -> list[Got]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

    return [
        Got(
            service=_plain(of.resource.attributes)["service.name"],
            name=one.name,
            kind=Span.SpanKind.Name(one.kind).removeprefix("SPAN_KIND_").lower(),
            trace_id=one.trace_id.hex(),
            span_id=one.span_id.hex(),
            parent=one.parent_span_id.hex(),
            started=one.start_time_unix_nano,
            ended=one.end_time_unix_nano,
            error=one.status.code == Status.STATUS_CODE_ERROR,
            attributes=_plain(one.attributes),
        )
        for of in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in of.scope_spans
        for one in scope.spans
    ]


def _plain(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
