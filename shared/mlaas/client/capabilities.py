"""What can be asked for, one entry each: how texts become a request, what the result is, and how its items become rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from .. import predictions
from ..contracts import (
    Classification,
    ClassifyRequest,
    ClassifyResult,
    Contract,
    FilledText,
    FillMaskRequest,
    FillMaskResult,
    Hybrid,
    Neighbour,
    SearchRequest,
    SearchResult,
    parse,
)
from ..predictions import EmbedResult, GenerateResult, NerResult
from .names import Index, Model, model_ref, store_ref

__all__ = ["ANSWER", "CLASSIFY", "EMBED", "FILL_MASK", "GENERATE", "NER", "SEARCH", "Capability", "of_result"]

P = ParamSpec("P")
R = TypeVar("R", bound=Contract)
I = TypeVar("I")  # noqa: E741 - an item: what one text gives

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Capability(Generic[P, R, I]):
    """`build` makes the request for at most `most` texts, `items` gives one thing for each text, `rows` a table's rows for one.

    `columns` are those of a row; where a text has any number of rows (`many`), it may have none.
    """

    name: str
    build: Callable[Concatenate[Sequence[str], P], Contract]
    result: type[R]
    items: Callable[[R], Sequence[I]]
    rows: Callable[[I], list[Row]]
    columns: tuple[str, ...]
    many: bool = False
    most: int = 4096


def classify(
    texts: Sequence[str], *, model: Model, text_pair: Sequence[str] | None = None, top_k: int = 1, score_threshold: float | None = None
) -> ClassifyRequest:
    """Classify texts; with `text_pair`, pairs of texts. `top_k` labels for each, those below `score_threshold` left out."""
    given = {"input_text": list(texts), **({"text_pair": list(text_pair)} if text_pair is not None else {})}
    return _parsed(ClassifyRequest, model, given, top_k=top_k, score_threshold=score_threshold)


def fill_mask(texts: Sequence[str], *, model: Model, top_k: int = 5) -> FillMaskRequest:
    """Fill every [MASK] of texts with the `top_k` likeliest tokens."""
    return _parsed(FillMaskRequest, model, {"input_text": list(texts)}, top_k=top_k)


def search(
    texts: Sequence[str],
    *,
    index: Index,
    model: Model | None = None,
    top_k: int = 10,
    score_threshold: float | None = None,
    filter: Mapping[str, Any] | None = None,
    hybrid: bool | Hybrid = False,
) -> SearchRequest:
    """Find the `top_k` nearest documents of an index (L2 distance), of those whose metadata pass `filter`; `hybrid`: by words as well."""
    asked: dict[str, Any] = {
        "dataset": store_ref(index).model_dump(exclude_none=True),
        "search_input": {"input_text": list(texts)},
        "top_k": top_k,
        "score_threshold": score_threshold,
        "filter": dict(filter) if filter else None,
        "model": model_ref(model).model_dump(exclude_none=True) if model else None,
        "hybrid": hybrid.model_dump() if isinstance(hybrid, Hybrid) else {} if hybrid else None,
    }
    return parse(SearchRequest, _given(asked))


def embed(texts: Sequence[str], *, model: Model) -> predictions.EmbedRequest:
    """Turn texts into vectors, the ones that `search` and `index` compute."""
    return _parsed(predictions.EmbedRequest, model, {"input_text": list(texts)})


def ner(texts: Sequence[str], *, model: Model, score_threshold: float | None = None) -> predictions.NerRequest:
    """Find the named entities of texts, those below `score_threshold` left out."""
    return _parsed(predictions.NerRequest, model, {"input_text": list(texts)}, score_threshold=score_threshold)


def answer(
    texts: Sequence[str], context: str | Sequence[str], *, model: Model, max_answer_tokens: int | None = None
) -> predictions.AnswerRequest:
    """Answer questions with words of `context`: one text for all of them, or one for each."""
    contexts = [context] if isinstance(context, str) else list(context)
    asked = {"question": list(texts), "context": contexts}
    return _parsed(predictions.AnswerRequest, model, asked, max_answer_tokens=max_answer_tokens)


def generate(
    texts: Sequence[str], *, model: Model, max_new_tokens: int = 32, top_k: int = 1, temperature: float = 1.0, seed: int = 0
) -> predictions.GenerateRequest:
    """Continue texts: with the likeliest token each time, or one of the `top_k` likeliest, drawn by `seed`."""
    settings = {"max_new_tokens": max_new_tokens, "top_k": top_k, "temperature": temperature, "seed": seed}
    return _parsed(predictions.GenerateRequest, model, {"input_text": list(texts)}, generate=settings)


C = TypeVar("C", bound=Contract)


def _parsed(request: type[C], model: Model, given: Mapping[str, Any], **more: Any) -> C:
    """The request, refused here as the platform would."""
    return parse(request, {"model": model_ref(model).model_dump(exclude_none=True), "predict_input": given, **_given(more)})


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _labels(one: Classification) -> list[Row]:
    scores = [(score.label, score.score) for score in one.scores]
    return [{"label": one.label, "score": one.score, "scores": scores, "truncated": one.truncated}]


def _masks(one: FilledText) -> list[Row]:
    best = [candidates[0] for candidates in one.masks]
    every = [[(candidate.token, candidate.probability) for candidate in candidates] for candidates in one.masks]
    tokens, probabilities = [first.token for first in best], [first.probability for first in best]
    return [{"filled": one.filled, "tokens": tokens, "probabilities": probabilities, "masks": every, "truncated": one.truncated}]


def _hits(found: Sequence[Neighbour]) -> list[Row]:
    return [{"rank": rank, **one.model_dump(include={"id", "score", "text", "metadata"})} for rank, one in enumerate(found, start=1)]


CLASSIFY = Capability(
    name="classify",
    build=classify,
    result=ClassifyResult,
    items=lambda result: result.predictions,
    rows=_labels,
    columns=("label", "score", "scores", "truncated"),
)
FILL_MASK = Capability(
    name="fill_mask",
    build=fill_mask,
    result=FillMaskResult,
    items=lambda result: result.predictions,
    rows=_masks,
    columns=("filled", "tokens", "probabilities", "masks", "truncated"),
)
SEARCH = Capability(
    name="search",
    build=search,
    result=SearchResult,
    items=lambda result: result.results,
    rows=_hits,
    columns=("rank", "id", "score", "text", "metadata"),
    many=True,
    most=256,
)
EMBED = Capability(
    name="embed",
    build=embed,
    result=EmbedResult,
    items=lambda result: result.vectors,
    rows=lambda vector: [{str(number): value for number, value in enumerate(vector)}],
    columns=(),
)
NER = Capability(
    name="ner",
    build=ner,
    result=NerResult,
    items=lambda result: result.predictions,
    rows=lambda one: [entity.model_dump() for entity in one.entities],
    columns=("text", "label", "score", "start", "end"),
    many=True,
)
ANSWER = Capability(
    name="answer",
    build=answer,
    result=predictions.AnswerResult,
    items=lambda result: result.predictions,
    rows=lambda one: [one.model_dump()],
    columns=("answer", "score", "start", "end"),
    most=256,
)
GENERATE = Capability(
    name="generate",
    build=generate,
    result=GenerateResult,
    items=lambda result: result.predictions,
    rows=lambda one: [one.model_dump()],
    columns=("text", "tokens", "finish"),
    most=64,
)
_ALL: tuple[Capability[..., Any, Any], ...] = (CLASSIFY, FILL_MASK, SEARCH, EMBED, NER, ANSWER, GENERATE)


def of_result(result: Contract) -> Capability[..., Any, Any]:
    """What gave `result`. Raises TypeError for what is no result of a prediction."""
    for one in _ALL:
        if isinstance(result, one.result):
            return one
    raise TypeError(f"{type(result).__name__} is not the result of a prediction")
