"""What a process counts, in a form that costs nothing until somebody scrapes it: Prometheus' library is imported then.

Every metric of the platform is a constant of this module; `docs/reference/metrics.md` lists them. A process that measures
nothing of a metric does not show it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from .instruments import Counter, Gauge, Histogram

__all__ = [
    "ALL",
    "BATCH_REQUESTS",
    "BATCH_TEXTS",
    "BATCH_TOKENS",
    "BATCH_WAIT_SECONDS",
    "CACHE_REQUESTS",
    "COLD_START_SECONDS",
    "CONTENT_TYPE",
    "EVENT_ATTEMPTS",
    "JOB_SECONDS",
    "LOAD_SECONDS",
    "OUTBOX_TASKS",
    "OVERLOADED",
    "PARKED_EVENTS",
    "PHASE_SECONDS",
    "PUBLISHED",
    "REQUEST_SECONDS",
    "SPANS_DROPPED",
    "TASKS",
    "TEXTS",
    "process_age",
    "render",
]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
PHASE_BUCKETS = (0.0005, 0.001, *REQUEST_BUCKETS)
START_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
JOB_BUCKETS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 24 * 3600.0)
SIZE_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
TOKEN_BUCKETS = (16.0, 64.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0)
ATTEMPT_BUCKETS = (1.0, 2.0, 3.0, 4.0, 5.0, 10.0)

_imported = time.monotonic()

REQUEST_SECONDS = Histogram(
    "mlaas_request_seconds",
    "Time from the start of a request's handling to its answer; outcomes are succeeded, refused, parked, unavailable, defect.",
    REQUEST_BUCKETS,
    ("capability", "outcome"),
)
PHASE_SECONDS = Histogram(
    "mlaas_phase_seconds",
    "Time of a request's parts: queue (from the server's receipt of it to the start of its handling), load, tokenize, infer, search.",
    PHASE_BUCKETS,
    ("capability", "phase"),
)
COLD_START_SECONDS = Histogram(
    "mlaas_cold_start_seconds",
    "Time from the process' start to its readiness, plus that of its first answer: once in each process.",
    START_BUCKETS,
)
LOAD_SECONDS = Histogram("mlaas_load_seconds", "Time to load a model or a vector store from disk into memory.", START_BUCKETS, ("kind",))
CACHE_REQUESTS = Counter(
    "mlaas_cache_requests_total",
    "Look-ups in the caches: models and stores in memory, downloads on disk; the result is hit or miss.",
    ("cache", "result"),
)
BATCH_TEXTS = Histogram("mlaas_batch_texts", "Texts in an inference batch.", SIZE_BUCKETS)
BATCH_TOKENS = Histogram("mlaas_batch_tokens", "Tokens in an inference batch, padding included.", TOKEN_BUCKETS)
BATCH_REQUESTS = Histogram("mlaas_batch_requests", "Requests that share an inference batch.", SIZE_BUCKETS)
BATCH_WAIT_SECONDS = Histogram(
    "mlaas_batch_wait_seconds", "Time from a request's turn to its model, texts tokenized, to the start of its first batch.", PHASE_BUCKETS
)
OVERLOADED = Counter("mlaas_overloaded_requests_total", "Requests that were told to come back because too many waited already.")
TEXTS = Counter("mlaas_texts_total", "Texts that went through a model, by variant and ONNX Runtime's provider.", ("variant", "provider"))
EVENT_ATTEMPTS = Histogram(
    "mlaas_event_attempts",
    "Which attempt at its event a delivery was, where that is counted: 1 is the first.",
    ATTEMPT_BUCKETS,
    ("capability",),
)
PARKED_EVENTS = Gauge("mlaas_parked_events", "Events given up after too many attempts, which wait to be replayed.")
OUTBOX_TASKS = Gauge("mlaas_outbox_tasks", "Tasks that owe an event which the Broker does not have yet.")
TASKS = Gauge("mlaas_tasks", "Tasks in the document store by status.", ("status",))
JOB_SECONDS = Histogram(
    "mlaas_job_seconds",
    "Time from the first start of a task's job to the task's end, for tasks that ended while the relay watched.",
    JOB_BUCKETS,
    ("capability", "outcome"),
)
PUBLISHED = Counter("mlaas_published_events_total", "Events of the outbox that this process published.", ("type",))
SPANS_DROPPED = Counter(
    "mlaas_dropped_spans_total", "Spans given up before OpenTelemetry took them: too many at once, or it could not be set up."
)

ALL: tuple[Counter | Histogram | Gauge, ...] = tuple(
    one for one in list(globals().values()) if isinstance(one, Counter | Histogram | Gauge)
)


def render(*others: Any) -> bytes:
    """Everything measured so far, and what `others` (Prometheus' collectors) collect, in Prometheus' text format."""
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    for collector in (_Measured(), *others):
        registry.register(collector)
    return generate_latest(registry)


class _Measured:
    def collect(self) -> Iterator[Any]:
        yield from (family for family in (metric.family() for metric in ALL) if family.samples)


def process_age() -> float:
    """Seconds since this process was started, from Linux's /proc; where that cannot be told, since its first import of this module."""
    since_import = time.monotonic() - _imported
    try:
        with open("/proc/self/stat", encoding="ascii") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):  # not Linux
        return since_import
    return age if since_import <= age < since_import + 60 else since_import  # some sandboxes count from another moment
