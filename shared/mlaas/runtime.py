"""Turns `answer(request) -> result` into a function's `main(context)`.

`main` takes CloudEvents, structured or binary, and answers with CloudEvents; it takes plain JSON over HTTP and answers
with JSON. It runs under `python -m mlaas.serve` and under `python -m parliament` alike, so it needs nothing but the
request that both hand over. What an error becomes is the table `_STATUSES`, and whether an event gets it as a reply or as a
status is decided in `_refusal`. Whatever else is raised is a defect: it is logged and answered with an error id.
"""

from __future__ import annotations

import json
import logging
import math
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from . import callers, events, logs, metrics, references, timing, tracing
from .contracts import Contract, parse
from .errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    Malformed,
    MlaasError,
    NotFound,
    Outdated,
    OutOfRange,
    Overloaded,
    QuotaExceeded,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from .settings import current

if TYPE_CHECKING:
    from cloudevents.http import CloudEvent

    from .catalog import Kind

__all__ = ["Context", "Function", "Response", "check_size", "defect_response", "json_of", "outcome_of", "problem", "problem_response"]

Response = tuple[bytes, int, dict[str, str]]
R = TypeVar("R", bound=Contract)
S = TypeVar("S", bound=Contract)

JSON, PROBLEM = "application/json", "application/problem+json"
TIMEOUT = "X-Envoy-Expected-Rq-Timeout-Ms"
# The first class that fits says the status of an HTTP answer (RFC 9110) and the title of the problem (RFC 9457).
_STATUSES: tuple[tuple[type[MlaasError], int, str], ...] = (
    (Malformed, 400, "Malformed request"),
    (Unauthenticated, 401, "Unauthenticated"),
    (Forbidden, 403, "Forbidden"),
    (NotFound, 404, "Not found"),
    (Conflict, 409, "Conflict"),
    (Outdated, 412, "Precondition failed"),
    (TooLarge, 413, "Request too large"),
    (OutOfRange, 416, "Range not satisfiable"),
    (InvalidRequest, 422, "Invalid request"),
    (QuotaExceeded, 429, "Quota exceeded"),
    (Overloaded, 429, "Overloaded"),
    (Unavailable, 503, "Unavailable"),
)

log = logging.getLogger("mlaas")


class Context(Protocol):
    """What a function is called with: parliament's context, of which only the Flask request is used."""

    @property
    def request(self) -> Any: ...


@dataclass(frozen=True)
class Function(Generic[R, S]):
    """One capability as a Knative function.

    `answer` is pure: a request gives a result, and the reply event is `succeeded`. `accept` is for long work: it also
    gets the event that asked (made up for an HTTP request, from its Idempotency-Key) and returns the accepted event;
    the third argument says whether that event has to go out by itself, because no broker waits for the reply. A function
    with both accepts the requests that are long work by what they say (`is_long_work`), and answers the others.
    `follows` are handlers of further event types, which answer nothing. `hears` are too, but of what may be lost or come twice:
    it leaves no trace in the ledger.
    """

    capability: str
    request: type[R]
    result: type[S]
    answer: Callable[[R], S] | None = None
    accept: Callable[[R, CloudEvent, bool], CloudEvent] | None = None
    follows: Mapping[str, Callable[[CloudEvent], None]] = field(default_factory=dict)
    hears: Mapping[str, Callable[[CloudEvent], None]] = field(default_factory=dict)

    def __call__(self, context: Context) -> Response:
        if context.request.method == "GET":
            return _json(self.describe(), 200)
        return self.serve(context.request)

    def serve(self, request: Any, speak: Callable[[Any], Response] | None = None) -> Response:
        """The response to a Flask request: an event or plain JSON, or what `speak` makes of a request in another protocol.

        It is timed, traced, counted and logged in any case, and what is raised becomes problem JSON.
        """
        started = time.perf_counter()
        with timing.record() as spans, self._span(request, spans.get("queue", 0.0)) as span, logs.bound(capability=self.capability):
            with callers.caller(_caller(request, spans.get("queue", 0.0))):
                response, line = self._respond(request, spans, speak)
            self._account(line, time.perf_counter() - started, spans)
            span.attributes |= {"http.response.status_code": response[1], "mlaas.outcome": line["outcome"]}
            span.error = line["outcome"] if line["outcome"] in ("unavailable", "defect") else None
        response[2].update({"Server-Timing": timing.server_timing(spans), "traceparent": span.traceparent})
        return response

    @contextmanager
    def _span(self, request: Any, waited: float) -> Iterator[tracing.Span]:
        """The span of a request that `waited` so many seconds before: it began then."""
        began = time.time_ns()
        received = began - int(waited * 1e9)
        attributes = {"http.request.method": request.method, "mlaas.capability": self.capability}
        parent = request.headers.get("traceparent")
        with tracing.span(f"{self.capability} request", kind="server", parent=parent, started=received, attributes=attributes) as span:
            yield span
            if waited:
                tracing.record("queue", received, began)

    def _account(self, line: Mapping[str, Any], seconds: float, spans: Mapping[str, float]) -> None:
        """Say in the metrics and the log how a request was answered."""
        metrics.REQUEST_SECONDS.observe(seconds, self.capability, line["outcome"])
        for phase, spent in spans.items():
            metrics.PHASE_SECONDS.observe(spent, self.capability, phase)
        log.info("request.answered", extra={"fields": {**line, "ms": round(seconds * 1000, 1)}})

    def describe(self) -> dict[str, Any]:
        """What GET / serves: which events the function takes and gives, and the JSON Schema of its request and reply."""
        states = [*(["succeeded"] if self.answer else []), *(["accepted"] if self.accept else []), "failed"]
        return {
            "capability": self.capability,
            "takes": [events.event_type(self.capability, "requested"), *self.follows, *self.hears],
            "gives": [events.event_type(self.capability, state) for state in states],
            "request": self.request.model_json_schema(),
            "reply": self.result.model_json_schema(),
        }

    def _respond(
        self, request: Any, spans: Mapping[str, float], speak: Callable[[Any], Response] | None
    ) -> tuple[Response, dict[str, Any]]:
        headers = dict(request.headers)
        event: CloudEvent | None = None
        carried, error_id = speak is None and events.is_event(headers), str(uuid.uuid4())
        try:
            check_size(request, current().max_body_bytes)
            if not carried:
                return (speak or self._http)(request), {"outcome": "succeeded"}
            event = events.from_request(headers, request.get_data())
            _join_trace(event)
            if event["type"] not in (*self.follows, *self.hears):
                references.check_event_size(len(request.get_data()), current().max_event_bytes)
            with logs.bound(id=event["id"]):
                reply = self._event(event, spans, error_id)
            line = {"id": event["id"], "type": event["type"], "outcome": _outcome(reply)}
            return (_event(reply) if reply else (b"", 204, {})), line
        except MlaasError as error:
            if isinstance(error, TooLarge) and carried and event is None:
                event = _without_data(headers)
            return self._refusal(error, event)
        except Exception:
            log.exception("request.defect", extra={"fields": {"error_id": error_id, **({"id": event["id"]} if event else {})}})
            return defect_response(error_id), {"outcome": "defect", "error_id": error_id}

    def _http(self, request: Any) -> Response:
        data = json_of(request, "Send a JSON object with Content-Type: application/json, or a CloudEvent.")
        asked = parse(self.request, data)
        if self.answer and not self._has_to_accept(asked):
            return self.answered(asked).model_dump_json(exclude_none=True).encode(), 200, {"Content-Type": JSON}
        assert self.accept, "a function answers or accepts"
        cause = events.new(self.capability, data, source=events.HTTP_SOURCE, id=request.headers.get("Idempotency-Key"))
        return _json(self.accept(asked, cause, True).data, 202)

    def answered(self, asked: R) -> S:
        """The answer to a request that came by HTTP, counted for the catalog: no event will say that it was given."""
        from . import served  # not in a cold start

        assert self.answer, "who asks for answers asks a function that gives some"
        result = self.answer(asked)
        models: tuple[tuple[Kind, Any], ...] = (("models", getattr(result, "model", None)), ("indexes", getattr(result, "index", None)))
        served.count((kind, one.name) for kind, one in models if one is not None)
        return result

    def _event(self, event: CloudEvent, spans: Mapping[str, float], error_id: str) -> CloudEvent | None:
        if heard := self.hears.get(event["type"]):
            return heard(event)
        handler = self.follows.get(event["type"])
        if handler is None and event["type"] != events.event_type(self.capability, "requested"):
            raise _not_taken(event["type"])
        if handler is None and self.answer and not self._has_to_accept(asked := parse(self.request, event.data)):
            result = self.answer(asked).model_dump(mode="json", exclude_none=True)
            reply = events.reply(event, self.capability, "succeeded", result, servertiming=timing.server_timing(spans) or None)
            return references.fitted(reply, current())
        from .documents import shared
        from .ledger import Ledger  # not in a cold start of a function that only answers

        ledger = Ledger(shared(), current().event_attempts)
        return ledger.act(self.capability, event, partial(self._change_the_world, event, handler), error_id=error_id)

    def _change_the_world(self, event: CloudEvent, handler: Callable[[CloudEvent], None] | None) -> CloudEvent | None:
        """Follow or accept `event`; a refusal that is final is a reply, which the ledger keeps as well."""
        try:
            if handler:
                return handler(event)
            assert self.accept, "a function answers or accepts"
            return self.accept(parse(self.request, event.data), event, False)
        except InvalidRequest as error:
            if not _final(error):
                raise
            return events.reply(event, self.capability, "failed", problem(error))

    def _has_to_accept(self, asked: R) -> bool:
        return self.accept is not None and asked.is_long_work

    def _refusal(self, error: MlaasError, event: CloudEvent | None) -> tuple[Response, dict[str, Any]]:
        body = problem(error)
        line = {"outcome": outcome_of(error), "status": body["status"], "field": error.field}
        if event is None:
            return problem_response(error), line
        line |= {"id": event["id"], "type": event["type"]}
        if _final(error):  # a broker retries 404 and 409, and drops other 4xx into dead letters: the caller is owed a reply
            return _event(events.reply(event, self.capability, "failed", body)), line
        return problem_response(error), line


def _caller(request: Any, waited: float) -> callers.Caller:
    """Who asked: whether they hang up, as the server sees it, and how long they wait, as Envoy (Knative's ingress) says it."""
    try:
        seconds = float(request.headers.get(TIMEOUT, "")) / 1000
    except ValueError:
        seconds = math.inf
    gone = request.environ.get("waitress.client_disconnected", lambda: False)
    return callers.Caller(gone=gone, deadline=time.monotonic() + seconds - waited, waited=waited)


def _not_taken(type: str) -> Malformed:
    """Why no function takes events of `type`."""
    if type == events.KAFKA_RECORD:  # version 1 of CloudEvents' own SDK leaves this header out
        remedy = "Send the attributes as `ce_` headers, or a structured event with the header `content-type: application/cloudevents+json`."
        return Malformed("the Kafka record was no CloudEvent, so it was wrapped as one", field="type", remedy=remedy)
    remedy = f"Types are {events.event_type('<capability>', 'requested')} with one of {', '.join(events.CAPABILITIES)}."
    return Malformed(f"no function takes events of type {type[:200]}", field="type", remedy=remedy)


def _final(error: MlaasError) -> bool:
    """Whether the same event would get the same refusal again; who sent what cannot be read gets no reply."""
    return isinstance(error, InvalidRequest) and not isinstance(error, Malformed)


def _outcome(reply: CloudEvent | None) -> str:
    if reply is None or not reply["type"].endswith(".failed.v1"):
        return "succeeded"
    return "parked" if reply.data["status"] == 503 else "refused"


def check_size(request: Any, limit: int) -> None:
    """Raise TooLarge if the body of a Flask request has more than `limit` bytes."""
    if (request.content_length or 0) > limit:
        raise TooLarge(f"the request is larger than {limit} bytes", field="$", remedy="Send fewer texts at once, or a reference to a file.")


def json_of(request: Any, remedy: str = "Send a JSON object with Content-Type: application/json.") -> Any:
    """The JSON in the body of a Flask request. Raises Malformed."""
    try:
        return json.loads(request.get_data() or b"null")
    except (ValueError, RecursionError):
        raise Malformed("the body is not JSON", field="$", remedy=remedy) from None


def problem(error: MlaasError) -> dict[str, Any]:
    """`error` as RFC 9457 problem JSON, with the offending field and the remedy."""
    kind, status, title = next(row for row in _STATUSES if isinstance(error, row[0]))
    name = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in kind.__name__).lstrip("-")
    body = {
        "type": f"urn:mlaas:problem:{name}",
        "title": title,
        "status": status,
        "detail": error.detail,
        "field": error.field,
        "remedy": error.remedy,
        "dependants": (error.dependants or None) if isinstance(error, Conflict) else None,
    }
    return {name: value for name, value in body.items() if value is not None}


def outcome_of(error: MlaasError) -> str:
    """How logs and metrics call a request that ended with `error`."""
    return "refused" if isinstance(error, InvalidRequest) else "unavailable"


def defect_response(error_id: str) -> Response:
    """The HTTP answer for a defect: a fixed text, and the id that finds it in the log."""
    body = {
        "type": "urn:mlaas:problem:defect",
        "title": "Internal error",
        "status": 500,
        "error_id": error_id,
        "detail": "The platform failed to answer; the error id finds the cause in its log.",
    }
    return _json(body, 500, PROBLEM)


def problem_response(error: MlaasError) -> Response:
    """`error` as an HTTP answer."""
    body = problem(error)
    response = _json(body, body["status"], PROBLEM)
    if isinstance(error, Unavailable):
        response[2]["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unauthenticated):
        response[2]["WWW-Authenticate"] = "Bearer"
    return response


def _json(body: Any, status: int, content_type: str = JSON) -> Response:
    return json.dumps(body, ensure_ascii=False).encode(), status, {"Content-Type": content_type}


def _event(event: CloudEvent) -> Response:
    headers, body = events.to_http(event)
    return body, 200, dict(headers)


def _join_trace(event: CloudEvent) -> None:
    """Let the request's span continue the event's trace; deliveries of an event that brings none are one trace."""
    tracing.adopt(event.get("traceparent"), otherwise=events.derived_id(event["source"], event["id"], "trace").replace("-", ""))
    if span := tracing.current():
        span.attributes |= events.span_attributes(event)


def _without_data(headers: Mapping[str, str]) -> CloudEvent | None:
    try:
        return events.from_request(headers, b"null") if "ce-id" in {name.lower() for name in headers} else None
    except Malformed:
        return None
