"""The Open Inference Protocol v2 over HTTP: what a model takes and gives, whether it is ready, and POST .../infer.

Names and versions are those of the catalog. https://github.com/kserve/open-inference-protocol, and Triton's extension for binary data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from .. import models
from ..catalog import Catalog
from ..contracts import ClassifyRequest, ModelRef, VectorStoreRef, parse
from ..errors import InvalidRequest, NotFound, within
from ..runtime import Function, Response, problem_response
from ..settings import current
from . import server
from .names import catalog, field_names, located
from .signatures import SIGNATURES, Signature
from .tensors import HEADER, Asked, read, unpacked, write

__all__ = ["owner_of", "respond"]

Act = Callable[[Signature, str, str | None, Any], Response]

_PATH = re.compile(r"models/([^/]+)(?:/versions/([^/]+))?(?:/(infer|ready))?")
_NOT_FOR_US = ("priority", "timeout")  # Triton's clients can send them; a request here has its place by when it came
_EVERY_LABEL = 1_000_000
_PLATFORMS = {"models": "onnx_onnxv1", "indexes": "faiss_vectorstore"}


def respond(function: Function[Any, Any], request: Any, path: str) -> Response:
    """The response to a Flask request of /v2/`path`."""
    found, signature = _PATH.fullmatch(path), SIGNATURES[function.capability]
    reading = request.method in ("GET", "HEAD")
    if not path and reading:
        return _json(server())
    if found is None or (found[3] == "infer") == reading or (not reading and request.method != "POST"):
        remedy = "GET /v2/models/MODEL, GET /v2/models/MODEL/ready or POST /v2/models/MODEL/infer, with /versions/VERSION after MODEL."
        return problem_response(NotFound("there is nothing at this path", remedy=remedy))
    name, version, action = found.groups()
    acts: dict[str | None, Act] = {"infer": partial(_infer, function), "ready": _ready, None: _describe}
    act = acts[action]
    return function.serve(request, lambda asked: act(signature, name, version, asked))


def owner_of(name: str, entries: Catalog) -> str:
    """The capability that serves a name of the catalog: a model's by its objective, else an index's. Raises NotFound."""
    try:
        objective = located(entries, "models", name, None).get("objective")
    except NotFound:
        if not entries.versions("indexes", name, limit=1):
            raise
        return "search"
    found = next((capability for capability, one in SIGNATURES.items() if objective in one.objectives), None)
    if found is None:
        raise NotFound(f"no function serves models whose objective is {objective}", field="model", remedy="Name another model.")
    return found


def _describe(signature: Signature, name: str, version: str | None, _: Any) -> Response:
    found = _served_here(signature, name, version)
    numbers = [body["version"] for body in reversed(catalog().versions(signature.kind, name))]
    inputs = signature.inputs_of(found.get("objective"))
    return _json(
        {
            "name": name,
            "versions": [found["version"]] if version else numbers,
            "platform": _PLATFORMS[signature.kind],
            "inputs": [{"name": one, "datatype": "BYTES", "shape": [-1]} for one in inputs],
            "outputs": [{"name": one, "datatype": kind, "shape": list(shape)} for one, (kind, shape) in signature.outputs.items()],
        }
    )


def _ready(signature: Signature, name: str, version: str | None, _: Any) -> Response:
    """Load the model as a request would, so that who waits for it need not send one first."""
    found = _served_here(signature, name, version)
    with field_names({signature.model: "model"}):
        if signature.kind == "indexes":
            store = models.load_store(VectorStoreRef(name=name, revision=found["version"]))
            models.load(store.model)
        else:
            models.load(ModelRef(name=name, revision=found["version"]))
    return _json({"name": name, "ready": True})


def _infer(function: Function[Any, Any], signature: Signature, name: str, version: str | None, request: Any) -> Response:
    found = located(catalog(), signature.kind, name, version)
    body = unpacked(request.get_data(), request.headers.get("Content-Encoding"), current().max_body_bytes)
    asked = read(body, request.headers.get(HEADER))
    if unknown := set(asked.wanted or ()) - set(signature.outputs):
        detail, remedy = f"there is no output `{sorted(unknown)[0][:100]}`", f"Outputs are {', '.join(signature.outputs)}."
        raise InvalidRequest(detail, field="outputs", remedy=remedy)
    fields = {field: given for given, field in (*signature.inputs.items(), *signature.parameters.items())}
    with field_names({**fields, f"{signature.model}.objective": "model", signature.model: "model"}):
        contract = parse(function.request, _request_of(signature, asked, {"name": name, "revision": found["version"]}))
        labels: tuple[str, ...] = ()
        top_k = getattr(contract, "top_k", 0)
        if isinstance(contract, ClassifyRequest):
            with within("model"):
                labels = models.load(contract.model).model.bundle.labels
            contract = contract.model_copy(update={"top_k": _EVERY_LABEL})
        outputs = signature.give(function.answered(contract), labels, top_k)
    wanted = outputs if asked.wanted is None else {one: outputs[one] for one in asked.wanted}
    said = {"model_name": name, "model_version": found["version"], **({} if asked.id is None else {"id": asked.id})}
    answer, headers = write(wanted, asked, **said)
    return answer, 200, headers


def _request_of(signature: Signature, asked: Asked, ref: Mapping[str, str]) -> dict[str, Any]:
    """The platform's own request that says the same. Raises InvalidRequest for a tensor or a parameter that is not known."""
    parameters = {name: value for name, value in asked.parameters.items() if name not in _NOT_FOR_US}
    request: dict[str, Any] = {signature.model: dict(ref)}
    for noun, known, given in (("input", signature.inputs, asked.inputs), ("parameter", signature.parameters, parameters)):
        if unknown := set(given) - set(known):
            there = f"There are {', '.join(known)}." if known else "There are none."
            raise InvalidRequest(f"there is no {noun} `{sorted(unknown)[0][:100]}`", field=f"{noun}s", remedy=there)
        for name, value in given.items():
            at = request
            *above, last = known[name].split(".")
            for part in above:
                at = at.setdefault(part, {})
            at[last] = value
    first = next(iter(signature.inputs))
    if first not in asked.inputs:
        raise InvalidRequest(f"the input `{first}` is missing", field="inputs", remedy=f"Inputs are {', '.join(signature.inputs)}.")
    return request


def _served_here(signature: Signature, name: str, version: str | None) -> dict[str, Any]:
    """The catalog's document of what this function serves under a name. Raises NotFound, also where another function serves it."""
    found = located(catalog(), signature.kind, name, version)
    if signature.objectives and found.get("objective") not in signature.objectives:
        objectives = " or ".join(signature.objectives)
        detail = f"the model's objective is {found.get('objective')}: this function does not serve it"
        raise NotFound(detail, field="model", remedy=f"Name a model whose objective is {objectives}, or ask the function that serves it.")
    return found


def _json(body: Any) -> Response:
    return json.dumps(body, ensure_ascii=False).encode(), 200, {"Content-Type": "application/json"}
