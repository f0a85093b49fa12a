"""What each function takes and gives as tensors: the names of its request's fields, and its result as arrays.

Where texts have different numbers of results (masks, entities, neighbours), those of all texts follow one another in one tensor, and
`counts` says how many each text has.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from ..catalog import Kind
from ..contracts import ClassifyResult, FillMaskResult, SearchResult
from ..predictions import AnswerResult, EmbedResult, GenerateResult, NerResult
from .tensors import Tensor

__all__ = ["SIGNATURES", "Signature"]

N, M = -1, -1  # texts, and results of all texts: sizes that vary
Shapes = Mapping[str, tuple[str, tuple[int, ...]]]
_ROW = (N,)


@dataclass(frozen=True, kw_only=True)
class Signature:
    """`inputs` and `parameters`: name to field of the request; `outputs`: name to datatype and shape.

    `give` makes them of a result, the model's labels and the request's `top_k`.
    """

    objectives: tuple[str, ...]
    outputs: Shapes
    give: Callable[[Any, tuple[str, ...], int], Mapping[str, Tensor]]
    inputs: Mapping[str, str] = field(default_factory=lambda: {"text": "predict_input.input_text"})
    parameters: Mapping[str, str] = field(default_factory=dict)
    kind: Kind = "models"
    model: str = "model"
    pairs_of: str | None = None

    def inputs_of(self, objective: str | None) -> list[str]:
        """The tensors that a model of this objective needs."""
        return [name for name in self.inputs if name != "text_pair" or objective == self.pairs_of]


def _classified(result: ClassifyResult, labels: tuple[str, ...], top_k: int) -> dict[str, Tensor]:
    """`result` holds all labels of each text: `probabilities` has them in the order of `classes`."""
    classes = [*labels, *(one.label for one in result.predictions[0].scores if one.label not in labels)]
    places = {label: place for place, label in enumerate(classes)}
    rows = [[0.0] * len(classes) for _ in result.predictions]
    for row, one in zip(rows, result.predictions, strict=True):
        for each in one.scores:
            row[places[each.label]] = each.score
    best = [one.scores[:top_k] for one in result.predictions]
    shape = (len(best), len(best[0]))
    return {
        "label": Tensor.texts([one.scores[0].label for one in result.predictions]),
        "score": Tensor.numbers("FP32", [one.scores[0].score for one in result.predictions]),
        "labels": Tensor.texts([each.label for one in best for each in one], *shape),
        "scores": Tensor.numbers("FP32", [each.score for one in best for each in one], *shape),
        "probabilities": Tensor.numbers("FP32", rows),
        "classes": Tensor.texts(classes),
        "truncated": _flags(result.predictions),
    }


def _filled(result: FillMaskResult, _: tuple[str, ...], __: int) -> dict[str, Tensor]:
    masks = [mask for one in result.predictions for mask in one.masks]
    shape = (len(masks), len(masks[0]))
    return {
        "filled": Tensor.texts([one.filled for one in result.predictions]),
        "counts": Tensor.numbers("INT32", [len(one.masks) for one in result.predictions]),
        "tokens": Tensor.texts([one.token for mask in masks for one in mask], *shape),
        "probabilities": Tensor.numbers("FP32", [[one.probability for one in mask] for mask in masks], *shape),
        "truncated": _flags(result.predictions),
    }


def _recognized(result: NerResult, _: tuple[str, ...], __: int) -> dict[str, Tensor]:
    found = [entity for one in result.predictions for entity in one.entities]
    return {
        "counts": Tensor.numbers("INT32", [len(one.entities) for one in result.predictions]),
        "entity": Tensor.texts([one.text for one in found]),
        "label": Tensor.texts([one.label for one in found]),
        "score": Tensor.numbers("FP32", [one.score for one in found]),
        "start": Tensor.numbers("INT32", [one.start for one in found]),
        "end": Tensor.numbers("INT32", [one.end for one in found]),
    }


def _answered(result: AnswerResult, _: tuple[str, ...], __: int) -> dict[str, Tensor]:
    """Where there is no answer: an empty text, from -1 to -1."""
    return {
        "answer": Tensor.texts([one.answer or "" for one in result.predictions]),
        "score": Tensor.numbers("FP32", [one.score for one in result.predictions]),
        "start": Tensor.numbers("INT32", [-1 if one.start is None else one.start for one in result.predictions]),
        "end": Tensor.numbers("INT32", [-1 if one.end is None else one.end for one in result.predictions]),
    }


def _embedded(result: EmbedResult, _: tuple[str, ...], __: int) -> dict[str, Tensor]:
    return {"embedding": Tensor.numbers("FP32", result.vectors), "truncated": Tensor.numbers("BOOL", result.truncated)}


def _generated(result: GenerateResult, _: tuple[str, ...], __: int) -> dict[str, Tensor]:
    return {
        "generated": Tensor.texts([one.text for one in result.predictions]),
        "tokens": Tensor.numbers("INT32", [one.tokens for one in result.predictions]),
        "finish": Tensor.texts([one.finish for one in result.predictions]),
    }


def _found(result: SearchResult, _: tuple[str, ...], __: int) -> dict[str, Tensor]:
    found = list(chain.from_iterable(result.results))
    return {
        "counts": Tensor.numbers("INT32", [len(one) for one in result.results]),
        "id": Tensor.texts([one.id for one in found]),
        "score": Tensor.numbers("FP32", [one.score for one in found]),
        "document": Tensor.texts([one.text for one in found]),
        "metadata": Tensor.texts([json.dumps(one.metadata, ensure_ascii=False) for one in found]),
        "truncated": Tensor.numbers("BOOL", result.truncated),
    }


def _flags(predictions: Any) -> Tensor:
    return Tensor.numbers("BOOL", [one.truncated for one in predictions])


SIGNATURES: Mapping[str, Signature] = {
    "classify": Signature(
        objectives=("text-classification", "next-sentence-prediction"),
        inputs={"text": "predict_input.input_text", "text_pair": "predict_input.text_pair"},
        pairs_of="next-sentence-prediction",
        parameters={"top_k": "top_k"},
        outputs={
            "label": ("BYTES", _ROW),
            "score": ("FP32", _ROW),
            "labels": ("BYTES", (N, -1)),
            "scores": ("FP32", (N, -1)),
            "probabilities": ("FP32", (N, M)),
            "classes": ("BYTES", (M,)),
            "truncated": ("BOOL", _ROW),
        },
        give=_classified,
    ),
    "fill_mask": Signature(
        objectives=("masked-lm",),
        parameters={"top_k": "top_k"},
        outputs={
            "filled": ("BYTES", _ROW),
            "counts": ("INT32", _ROW),
            "tokens": ("BYTES", (M, -1)),
            "probabilities": ("FP32", (M, -1)),
            "truncated": ("BOOL", _ROW),
        },
        give=_filled,
    ),
    "ner": Signature(
        objectives=("token-classification",),
        parameters={"score_threshold": "score_threshold"},
        outputs={
            "counts": ("INT32", _ROW),
            "entity": ("BYTES", (M,)),
            "label": ("BYTES", (M,)),
            "score": ("FP32", (M,)),
            "start": ("INT32", (M,)),
            "end": ("INT32", (M,)),
        },
        give=_recognized,
    ),
    "answer": Signature(
        objectives=("question-answering",),
        inputs={"question": "predict_input.question", "context": "predict_input.context"},
        parameters={"max_answer_tokens": "max_answer_tokens"},
        outputs={"answer": ("BYTES", _ROW), "score": ("FP32", _ROW), "start": ("INT32", _ROW), "end": ("INT32", _ROW)},
        give=_answered,
    ),
    "embed": Signature(
        objectives=("no-objective", "sentence-embedding"),
        outputs={"embedding": ("FP32", (N, M)), "truncated": ("BOOL", _ROW)},
        give=_embedded,
    ),
    "generate": Signature(
        objectives=("causal-lm",),
        parameters={name: f"generate.{name}" for name in ("max_new_tokens", "top_k", "temperature", "seed")},
        outputs={"generated": ("BYTES", _ROW), "tokens": ("INT32", _ROW), "finish": ("BYTES", _ROW)},
        give=_generated,
    ),
    "search": Signature(
        objectives=(),
        kind="indexes",
        model="dataset",
        inputs={"text": "search_input.input_text"},
        parameters={"top_k": "top_k", "score_threshold": "score_threshold"},
        outputs={
            "counts": ("INT32", _ROW),
            "id": ("BYTES", (M,)),
            "score": ("FP32", (M,)),
            "document": ("BYTES", (M,)),
            "metadata": ("BYTES", (M,)),
            "truncated": ("BOOL", _ROW),
        },
        give=_found,
    ),
}
