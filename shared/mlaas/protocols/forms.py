"""Problems in the form in which each protocol says them: one text for the Open Inference Protocol, an object for OpenAI's clients.

Both protocols know 400 for whatever can never be served as it is, where the platform's own interface says 422.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["put_into_form"]

Problem = Mapping[str, Any]
PROBLEM = "application/problem+json"


def put_into_form(path: str, response: Any) -> None:
    """Let `response`, a Flask response to a request of `path`, say its problem as the protocol does; others stay as they are."""
    form = next((form for prefix, form in _FORMS.items() if path == prefix or path.startswith(f"{prefix}/")), None)
    if form is None or response.mimetype != PROBLEM:
        return
    problem = json.loads(response.get_data())
    response.status_code = 400 if problem["status"] == 422 else problem["status"]
    response.set_data(json.dumps(form(problem), ensure_ascii=False))
    response.content_type = "application/json"


def _text(problem: Problem) -> str:
    """Detail, field and remedy as sentences."""
    detail, field = problem["detail"].rstrip("."), problem.get("field")
    where = "" if field in (None, "$") or f"`{field}`" in detail else f" (`{field}`)"
    found_by = f" error_id {problem['error_id']}." if problem.get("error_id") else ""
    remedy = f" {problem['remedy']}" if problem.get("remedy") else ""
    return f"{detail[:1].upper()}{detail[1:]}{where}.{remedy}{found_by}"


def _inference(problem: Problem) -> dict[str, Any]:
    return {"error": _text(problem)}


def _openai(problem: Problem) -> dict[str, Any]:
    status, field = problem["status"], problem.get("field")
    kind = {429: "rate_limit_error", 500: "server_error", 503: "server_error"}.get(status, "invalid_request_error")
    codes = {429: "rate_limit_exceeded", 503: "service_unavailable", 404: "model_not_found" if field == "model" else None}
    return {"error": {"message": _text(problem), "type": kind, "param": None if field == "$" else field, "code": codes.get(status)}}


_FORMS: Mapping[str, Callable[[Problem], dict[str, Any]]] = {"/v1": _openai, "/v2": _inference}
