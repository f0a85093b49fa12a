"""Embeddings: texts in, one vector for each out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidRequest

if TYPE_CHECKING:
    from .engine import Model

__all__ = ["embed", "listed"]

# What exporters call a vector for each text and a vector for each token, in the order of preference.
OUTPUTS = ("sentence_embedding", "last_hidden_state", "token_embeddings", "hidden_state", "hidden_states")


def embed(model: Model, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[bool]]:
    """Vectors (n, d) of the texts, and which texts were longer than the model's maximum and lost their end.

    A vector for each token is pooled as the bundle says (the mean of the tokens unless it says otherwise); a vector for each
    text is taken as it is; either gets length 1 where the bundle says so. Raises InvalidRequest for a model that gives neither.
    """
    output = _output(model)
    encoded = model.encode(texts)
    vectors: NDArray[np.float32] | None = None
    for indices, values, mask in model.run(encoded, output=output):
        pooled = _pool(values.astype(np.float32, copy=False), mask, model.bundle.pooling)
        if vectors is None:
            vectors = np.empty((len(encoded), pooled.shape[1]), dtype=np.float32)
        vectors[indices] = pooled
    if vectors is None:
        vectors = np.empty((0, 0), dtype=np.float32)
    return (_normalised(vectors) if model.bundle.normalize else vectors), [one.truncated for one in encoded]


def listed(vectors: NDArray[np.float32]) -> list[list[float]]:
    """`vectors` as numbers with the fewest decimals that are still the same float32: half the JSON of their exact values."""
    import orjson

    numbers: list[list[float]] = orjson.loads(orjson.dumps(np.ascontiguousarray(vectors), option=orjson.OPT_SERIALIZE_NUMPY))
    return numbers


def _output(model: Model) -> str:
    for name in OUTPUTS:
        if name in model.outputs:
            return name
    raise InvalidRequest(
        f"the model gives no embedding: its objective is {model.bundle.objective} and its graph has the outputs {', '.join(model.outputs)}",
        field="model.objective",
        remedy="Name a model whose objective is no-objective, or export this one's encoder (output `last_hidden_state`).",
    )


def _pool(values: NDArray[np.float32], mask: NDArray[np.int64], pooling: str | None) -> NDArray[Any]:
    if values.ndim == 2:
        return values
    if pooling == "cls":
        return values[:, 0]
    weights = mask[:, :, None].astype(np.float32)
    return np.asarray((values * weights).sum(axis=1) / weights.sum(axis=1))


def _normalised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)
