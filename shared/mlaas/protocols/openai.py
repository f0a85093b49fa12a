"""OpenAI's embeddings: POST /v1/embeddings, GET /v1/models and /v1/models/{model}, over the vectors of the function embed."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, Literal

import numpy as np
import orjson
from pydantic import Field

from .. import models
from ..catalog_api.access import ANONYMOUS, Principal, principal_of
from ..contracts import Contract, ModelRef, parse
from ..errors import InvalidRequest, NotFound, Unauthenticated
from ..predictions import EmbedRequest, EmbedResult
from ..runtime import Function, Response, json_of, problem_response
from ..settings import current
from .names import catalog, field_names, located

__all__ = ["respond"]

OBJECTIVES = ("no-objective", "sentence-embedding")
_FIELDS = {"predict_input.input_text": "input", "model.objective": "model"}


class EmbeddingsRequest(Contract):
    """What OpenAI's clients send. `user` means nothing here."""

    input: Any = Field(description="A text, texts, the tokens of a text, or those of several.")
    model: str = Field(min_length=1, max_length=200)
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None


def respond(function: Function[EmbedRequest, EmbedResult], request: Any, path: str) -> Response:
    """The response to a Flask request of /v1/`path`."""
    kind, _, name = path.partition("/")
    if (request.method, path) == ("POST", "embeddings"):
        return function.serve(request, partial(_embeddings, function))
    if request.method in ("GET", "HEAD") and path == "models":
        return function.serve(request, _list)
    if request.method in ("GET", "HEAD") and kind == "models" and name:
        return function.serve(request, partial(_model, name))
    return problem_response(NotFound("there is nothing at this path", remedy="POST /v1/embeddings, GET /v1/models or /v1/models/MODEL."))


def _embeddings(function: Function[EmbedRequest, EmbedResult], request: Any) -> Response:
    asked = parse(EmbeddingsRequest, json_of(request))
    if asked.dimensions is not None:
        raise InvalidRequest("vectors are as long as the model makes them", field="dimensions", remedy="Leave it out.")
    ref = _ref(asked.model)
    with field_names(_FIELDS):
        loaded = models.load(ref)
        texts = _texts(asked.input, loaded.model.tokenizer)
        result = function.answered(parse(EmbedRequest, {"model": ref.model_dump(), "predict_input": {"input_text": texts}}))
    tokens = sum(len(one.ids) for one in loaded.model.encode(texts))  # once more: cheap beside the vectors
    vectors = np.asarray(result.vectors, dtype="<f4")
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(row.tobytes()).decode() if asked.encoding_format == "base64" else values,
            **({"truncated": True} if cut else {}),
        }
        for index, (row, values, cut) in enumerate(zip(vectors, result.vectors, result.truncated, strict=True))
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return _json({"object": "list", "data": data, "model": f"{ref.name}:{ref.revision}", "usage": usage})


def _texts(given: Any, tokenizer: Any) -> list[str]:
    """The texts of `input`, or those that its tokens stand for. Raises InvalidRequest."""
    if _are(given, int):
        return [_decoded(given, tokenizer, "input")]
    several = [given] if isinstance(given, str) else given
    if not isinstance(several, list) or not several:
        detail = "`input` is to be a text, a list of texts, or lists of tokens"
        raise InvalidRequest(detail, field="input", remedy="Send at least one text.")
    fields = [f"input.{place}" for place in range(len(several))]
    return [_decoded(one, tokenizer, field) if _are(one, int) else _text(one, field) for one, field in zip(several, fields, strict=True)]


def _are(given: Any, kind: type) -> bool:
    return isinstance(given, list) and bool(given) and all(type(one) is kind for one in given)


def _text(given: Any, field: str) -> str:
    if not isinstance(given, str) or not given:
        raise InvalidRequest(f"`{field}` is no text", field=field, remedy="Send texts that are not empty, or lists of tokens.")
    return given


def _decoded(tokens: Sequence[int], tokenizer: Any, field: str) -> str:
    size = tokenizer.get_vocab_size()
    if not all(0 <= token < size for token in tokens):
        remedy = f"Send the text itself, or tokens of this model's own tokenizer: 0 to {size - 1}."
        raise InvalidRequest("these are not tokens of the model", field=field, remedy=remedy)
    return str(tokenizer.decode(list(tokens)))


def _list(request: Any) -> Response:
    """The models that whoever asks may see, as the catalog has it, and that give vectors."""
    principal = _principal(request)
    entries = [entry for entry in catalog().entries.all("models") if entry.task in OBJECTIVES and principal.may_read(entry)]
    data = [_shown(entry.name, entry.created, entry.owner) for entry in sorted(entries, key=lambda entry: entry.name)]
    return _json({"object": "list", "data": data})


def _model(name: str, request: Any) -> Response:
    version = located(catalog(), "models", *_parts(name))
    if version.get("objective") not in OBJECTIVES:
        raise NotFound(f"the model's objective is {version.get('objective')}: it gives no vectors", field="model", remedy="GET /v1/models.")
    entry = catalog().entry("models", version["name"])
    return _json(_shown(name, version["created"], entry.owner if _principal(request).may_read(entry) else None))


def _principal(request: Any) -> Principal:
    with suppress(Unauthenticated):  # OpenAI's clients always send a key
        return principal_of(request.headers.get("Authorization"), current())
    return ANONYMOUS


def _shown(name: str, created: str, owner: str | None) -> dict[str, Any]:
    moment = int(datetime.fromisoformat(created).timestamp()) if created else 0
    return {"id": name, "object": "model", "created": moment, "owned_by": owner or "mlaas"}


def _ref(model: str) -> ModelRef:
    version = located(catalog(), "models", *_parts(model))
    return ModelRef(name=version["name"], revision=version["version"])


def _parts(model: str) -> tuple[str, str | None]:
    """A name, and the version or alias after a colon."""
    name, _, which = model.partition(":")
    return name, which or None


def _json(body: Any) -> Response:
    return orjson.dumps(body), 200, {"Content-Type": "application/json"}
