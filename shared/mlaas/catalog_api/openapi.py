"""The OpenAPI 3.1 description of the REST interface, made from its operations and their models."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from .. import __version__
from ..catalog import KINDS, contracts
from .interface import OPERATIONS
from .operations import Operation

__all__ = ["document"]

_REF = "#/components/schemas/{model}"
_NAME = {"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,99}$"}
_PATH: dict[str, dict[str, Any]] = {
    "kind": {"type": "string", "enum": list(KINDS)},
    "name": _NAME,
    "alias": _NAME,
    "version": {"type": "string", "pattern": "^([1-9][0-9]{0,8}|latest)$"},
    "file": {"type": "string", "minLength": 1, "description": "Its slashes may stand as they are."},
    "task": {"type": "string", "minLength": 1, "maxLength": 200},
    "owner": {
        "type": "string",
        "minLength": 1,
        "maxLength": 100,
        "description": "A subject, or `group:NAME`; slashes may stand as they are.",
    },
}
_CONDITION = [
    {"name": name, "in": "header", "required": False, "schema": {"type": "string"}, "description": why}
    for name, why in (
        ("If-Match", "The `ETag` of what was read: a change of anything else is refused with 412."),
        ("If-None-Match", "`*`: only if it is not there yet."),
    )
]


@lru_cache(maxsize=1)
def document() -> dict[str, Any]:
    """The whole description."""
    models = {model for one in OPERATIONS for model in (one.body, one.answer) if model} | {contracts.Problem}
    by_name = sorted(models, key=lambda model: model.__name__)
    _, defined = models_json_schema([(model, _mode(model)) for model in by_name], ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for one in OPERATIONS:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "The catalog of ML-AAS",
            "version": __version__,
            "description": "Models, vector stores and data sets: their versions, aliases and files; tasks and their events. "
            "Reading what is public needs no token.",
        },
        "paths": paths,
        "components": {
            "schemas": defined["$defs"],
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "The platform's token, or one of its issuer (OIDC)."}
            },
        },
        "security": [{}, {"token": []}],
    }


def _mode(model: type[BaseModel]) -> Any:
    return "validation" if any(one.body is model for one in OPERATIONS) else "serialization"


def _operation(one: Operation) -> dict[str, Any]:
    names = [part[1:-1] for part in one.path.split("/") if part.startswith("{")]
    parameters = [{"name": name, "in": "path", "required": True, "schema": _PATH[name]} for name in names]
    parameters += _query(one) + (_CONDITION if one.conditional else [])
    described: dict[str, Any] = {"operationId": one.id, "summary": one.summary, "parameters": parameters, "responses": _responses(one)}
    if one.body:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(one.body)}}}
    if one.upload:
        described["requestBody"] = {"required": True, "content": {"application/octet-stream": {}}}
    if one.role != "anonymous":
        described["security"] = [{"token": []}]
        described["description"] = f"Needs the role {one.role}."
    return described


def _query(one: Operation) -> list[dict[str, Any]]:
    if one.query is None:
        return []
    schema = one.query.model_json_schema()
    assert "$defs" not in schema, "a query has no objects in it"
    needed = schema.get("required", ())
    return [{"name": name, "in": "query", "required": name in needed, "schema": said} for name, said in schema["properties"].items()]


def _responses(one: Operation) -> dict[str, Any]:
    done: dict[str, Any]
    if one.answer:
        done = {"description": "It.", "content": {one.media: {"schema": _ref(one.answer)}}}
        if one.conditional or one.id in ("getEntry", "getAlias"):
            done["headers"] = {"ETag": {"schema": {"type": "string"}, "description": "For `If-Match`."}}
    elif one.media != "application/json":
        done = {"description": "It.", "content": {one.media: {}}}
    else:
        done = {"description": "Done."}
    problems = {400, 401, 404, 422, 429, 503, *([412] if one.conditional else []), *([413] if one.body else [])}
    problems |= {403} if one.role != "anonymous" else set()
    problems |= {status for status in one.statuses if status >= 400}
    good = [status for status in one.statuses if status < 300 and one.answer]
    usual = 200 if one.answer or one.media != "application/json" else 204
    said: dict[str, Any] = {str(status): done for status in good or [usual]}
    said |= {str(status): {"description": "Elsewhere, in part, or as it was."} for status in one.statuses if status < 400 and not good}
    problem = {"description": "A problem.", "content": {"application/problem+json": {"schema": _ref(contracts.Problem)}}}
    return said | {str(status): problem for status in sorted(problems)}


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}
