"""The routes of the REST interface: from a Flask request to an operation, and from its answer or error to a response."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from dataclasses import dataclass
from functools import partial
from typing import Any

import flask
from werkzeug.routing import PathConverter

from .. import logs, metrics
from ..catalog import Catalog, audit
from ..contracts import parse
from ..documents import shared
from ..errors import InvalidRequest, Malformed, MlaasError, NotFound
from ..runtime import check_size, defect_response, outcome_of, problem_response
from ..settings import Settings, current
from . import headers, openapi, rates, request_counts
from .access import Principal
from .interface import OPERATIONS
from .operations import Asked, Operation

__all__ = ["Routes", "check_names"]

CAPABILITY = "catalog"
UPLOAD_SECONDS = 600.0
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")

log = logging.getLogger("mlaas")


@dataclass(frozen=True)
class Routes:
    """What a function serves beside `/`: the operations under /v1 and their description."""

    def limits(self, settings: Settings) -> dict[str, Any]:
        """What the server in front must let through: the largest body, and the seconds that one may take to arrive."""
        return {"max_request_body_size": settings.upload_bytes + 1024**2, "seconds": UPLOAD_SECONDS}

    def blueprint(self) -> flask.Blueprint:
        """For the server's application."""
        made = flask.Blueprint("catalog", __name__)
        made.record(lambda state: state.app.url_map.converters.update(anything=_Anything))
        made.add_url_rule("/openapi.json", "openapi", lambda: flask.jsonify(openapi.document()))
        for one in OPERATIONS:
            rule = re.sub(r"{(\w+)}", r"<\1>", one.path).replace("<file>", "<path:file>").replace("<owner>", "<anything:owner>")
            made.add_url_rule(rule, one.id, partial(_answered, one), methods=[one.method])
        for rule in ("/v1", "/v1/<path:_>"):
            made.add_url_rule(rule, "nothing", _nothing, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
        made.after_request(headers.guarded)
        return made


class _Anything(PathConverter):
    """The rest of a path, whatever is in it: lines and slashes too."""

    regex = "(?s:.+)"
    part_isolating = False


def _nothing(**_: str) -> Any:
    return problem_response(NotFound("there is nothing at this path", remedy="GET /openapi.json describes what there is."))


def _answered(operation: Operation, **path: str) -> Any:
    """The response, whatever happens, with a line in the log and a measured time."""
    started, outcome, error_id = time.perf_counter(), "succeeded", str(uuid.uuid4())
    with logs.bound(capability=CAPABILITY, operation=operation.id):
        try:
            return _done(operation, path)
        except MlaasError as error:
            outcome = outcome_of(error)
            return problem_response(error)
        except Exception:
            outcome = "defect"
            log.exception("request.defect", extra={"fields": {"error_id": error_id}})
            return defect_response(error_id)
        finally:
            seconds = time.perf_counter() - started
            metrics.REQUEST_SECONDS.observe(seconds, CAPABILITY, outcome)
            log.info("request.answered", extra={"fields": {"outcome": outcome, "ms": round(seconds * 1000, 1)}})


def _done(operation: Operation, path: dict[str, str]) -> Any:
    """The response; what changes something is recorded, also where it is refused to somebody who is known."""
    settings = current()
    principal = rates.admitted(flask.request.headers.get("Authorization"), flask.request.remote_addr, settings)
    if operation.counts:
        request_counts.take(principal, settings)
    if not operation.changes or principal.subject is None:
        return _response(operation.handler(_asked(operation, path, principal)))
    with audit.recorded(shared(settings), principal.subject, operation.id, path) as record:
        response = _response(operation.handler(_asked(operation, path, principal)))
        record.made = response.headers.get("Location")
        return response


def _asked(operation: Operation, path: dict[str, str], principal: Principal) -> Asked:
    request, settings = flask.request, current()
    principal.require(operation.role)
    if operation.method in ("PUT", "POST"):
        check_names(path)
    asked = Asked(
        catalog=Catalog(shared(settings)),
        principal=principal,
        settings=settings,
        path=path,
        query=parse(operation.query, _arguments(operation)) if operation.query else None,
        body=parse(operation.body, _body(settings.max_body_bytes)) if operation.body else None,
        if_match=request.headers.get("If-Match"),
        if_none_match=request.headers.get("If-None-Match"),
    )
    if operation.role == "owner" and "name" in path:
        asked.require_owner()
    return asked


def check_names(path: dict[str, str]) -> None:
    """Raise InvalidRequest for a name that nothing is to be called."""
    for part in ("name", "alias"):
        if part in path and not _NAME.fullmatch(path[part]):
            remedy = "Use lowercase letters, digits, `.`, `_` and `-`, beginning with a letter or a digit, at most 100."
            raise InvalidRequest("this cannot be a name", field=part, remedy=remedy)


def _arguments(operation: Operation) -> dict[str, Any]:
    """The query, with a list where one is asked for."""
    assert operation.query
    several = {name for name, field in operation.query.model_fields.items() if str(field.annotation).startswith("list")}
    given = flask.request.args.to_dict(flat=False)
    return {name: values if name in several else values[-1] for name, values in given.items()}


def _body(limit: int) -> Any:
    check_size(flask.request, limit)
    try:
        return json.loads(flask.request.get_data() or b"null")
    except (ValueError, RecursionError):
        raise Malformed("the body is not JSON", field="$", remedy="Send a JSON object with Content-Type: application/json.") from None


def _response(answer: Any) -> Any:
    if isinstance(answer, flask.Response):
        return answer
    model, etag = answer if isinstance(answer, tuple) else (answer, None)
    response = flask.Response(model.model_dump_json(exclude_none=True), content_type="application/json")
    if etag is not None:
        response.set_etag(etag)
    if following := getattr(model, "next", None):
        rest = {**flask.request.args.to_dict(flat=False), "cursor": [following]}
        response.headers["Link"] = f'<{flask.url_for(flask.request.endpoint or "", **flask.request.view_args or {}, **rest)}>; rel="next"'  # type: ignore[arg-type]
    return response
