"""Text classification: texts in, labels with their probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .contracts import Classification, LabelScore
from .errors import InvalidRequest
from .ngrams import MODEL_TYPE

if TYPE_CHECKING:
    from .engine import Model

__all__ = ["classify"]

OBJECTIVE, OF_PAIRS = "text-classification", "next-sentence-prediction"
_SERVED_BY = {
    "masked-lm": "`fill_mask`",
    "no-objective": "`embed`, `search` and `index`",
    "token-classification": "`ner`",
    "question-answering": "`answer`",
    "causal-lm": "`generate`",
}


def classify(
    model: Model, texts: Sequence[str], top_k: int = 1, score_threshold: float | None = None, *, pairs: Sequence[str] | None = None
) -> list[Classification]:
    """One classification for each text: its `top_k` labels, best first, without those below `score_threshold`.

    `pairs` holds the second text of each, for models that compare two. Raises InvalidRequest for a model that is no classifier,
    RuntimeError where the model gives numbers that are none.
    """
    _require_classifier(model, pairs)
    encoded = model.encode(texts, pairs=pairs)
    found: list[list[LabelScore]] = [[] for _ in texts]
    for indices, logits, _ in model.run(encoded, output=_output(model)):
        for index, row in zip(indices, _probabilities(logits, model.bundle.config), strict=True):
            found[index] = _best(row, model.bundle.labels, top_k, score_threshold)
    return [
        Classification(
            label=scores[0].label if scores else None, score=scores[0].score if scores else None, scores=scores, truncated=one.truncated
        )
        for scores, one in zip(found, encoded, strict=True)
    ]


def _require_classifier(model: Model, pairs: Sequence[str] | None) -> None:
    objective = model.bundle.objective
    if pairs is not None and model.bundle.config.get("model_type") == MODEL_TYPE:
        raise InvalidRequest(
            "the model reads n-grams of single texts", field="predict_input.text_pair", remedy="Leave it out, or name a transformer."
        )
    if objective == OBJECTIVE or (objective == OF_PAIRS and pairs is not None):
        return
    if objective == OF_PAIRS:
        raise InvalidRequest(
            "the model says whether one sentence follows another, and there is only one",
            field="predict_input.text_pair",
            remedy="Give the second sentences, one for each of `input_text`.",
        )
    other = _SERVED_BY.get(objective)
    remedy = f"Name a model whose objective is {OBJECTIVE}" + (f", or send the request to {other}." if other else ".")
    raise InvalidRequest(f"the model's objective is {objective}: it does not classify texts", field="model.objective", remedy=remedy)


def _output(model: Model) -> str | None:
    return "logits" if "logits" in model.outputs else None


def _probabilities(logits: NDArray[Any], config: dict[str, Any]) -> NDArray[np.float64]:
    """Softmax over the labels (b, labels), in float64; each label by itself where the model was trained to give several."""
    values = logits.astype(np.float64)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise RuntimeError(f"the classifier's output of shape {values.shape} is not a row of finite numbers for each text")
    if config.get("problem_type") == "multi_label_classification":
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * values)))  # the logistic function, without overflow
    exponents = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def _best(row: NDArray[np.float64], labels: Sequence[str], top_k: int, threshold: float | None) -> list[LabelScore]:
    order = np.argsort(-row, kind="stable")[:top_k]
    scores = [LabelScore(label=labels[i] if i < len(labels) else f"LABEL_{i}", score=float(row[i])) for i in order.tolist()]
    return [one for one in scores if threshold is None or one.score >= threshold]
