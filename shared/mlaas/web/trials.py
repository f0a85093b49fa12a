"""How each kind of model is tried: what its form asks for, the request that is made of it, and the answer as people read it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidRequest

__all__ = ["CLASSIFY", "SEARCH", "Trial", "trial_of"]

LINES = 50  # texts of one form
_MASK = re.compile(r"\[MASK\]|<mask>")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How a kind of model is tried. `fields` are name, label and an example of each text; `ask` makes the request of them."""

    capability: str
    verb: str
    fields: tuple[tuple[str, str, str], ...]
    hint: str
    ask: Callable[[Mapping[str, str]], dict[str, Any]]
    read: Callable[[Mapping[str, str], dict[str, Any]], Any]


def _lines(text: str) -> list[str]:
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if len(found) > LINES:
        raise InvalidRequest(f"there are more than {LINES} lines", field="text", remedy="Send a data set instead: `mlaas classify --file`.")
    return found


def _classified(given: Mapping[str, str], answer: dict[str, Any]) -> Any:
    return list(zip(_lines(given["text"]), map(_labelled, answer["predictions"]), strict=False))


def _paired(given: Mapping[str, str], answer: dict[str, Any]) -> Any:
    return [(f"{given['text']} … {given['pair']}", _labelled(answer["predictions"][0]))]


def _labelled(prediction: dict[str, Any]) -> dict[str, Any]:
    """A prediction with its label and score, None where the answer leaves them out since no label reached the threshold."""
    return {"label": None, "score": None, **prediction}


def _filled(given: Mapping[str, str], answer: dict[str, Any]) -> Any:
    """Pieces of the text, each with the candidates of the mask that follows it; None after the last."""
    found, pieces = answer["predictions"][0], _MASK.split(given["text"])
    masks = [*found["masks"], *[None] * len(pieces)]
    return {"pieces": list(zip(pieces, masks[: len(pieces)], strict=True)), "truncated": found["truncated"]}


def _marked(given: Mapping[str, str], answer: dict[str, Any]) -> Any:
    """Pieces of the text: what is no entity has no label."""
    pieces: list[tuple[str, Any]] = []
    at, text = 0, given["text"]
    for one in sorted(answer["predictions"][0]["entities"], key=lambda entity: entity["start"]):
        pieces += [(text[at : one["start"]], None), (text[one["start"] : one["end"]], one)]
        at = one["end"]
    return [*pieces, (text[at:], None)]


def _answered(given: Mapping[str, str], answer: dict[str, Any]) -> Any:
    found, text = {"answer": None, **answer["predictions"][0]}, given["context"]  # where there is none, it is left out
    if found["answer"] is None:
        return {"found": found, "before": text, "after": ""}
    return {"found": found, "before": text[: found["start"]], "after": text[found["end"] :]}


def _generated(given: Mapping[str, str], answer: dict[str, Any]) -> Any:
    return {"given": given["text"], **answer["predictions"][0]}


def _compared(given: Mapping[str, str], answer: dict[str, Any]) -> Any:
    one, other = answer["vectors"]
    lengths = math.hypot(*one) * math.hypot(*other)
    cosine = sum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths else 0.0
    return {"distance": math.dist(one, other), "cosine": cosine, "dimension": answer["dimension"]}


def _found(given: Mapping[str, str], answer: dict[str, Any]) -> Any:
    return {"results": answer["results"][0], "farthest": max((one["score"] for one in answer["results"][0]), default=0.0)}


_TEXT = "Text"
CLASSIFY = Trial(
    capability="classify",
    verb="Classify",
    fields=(("text", "Texts, one a line", "INFN, Laboratori Nazionali di Frascati, Italy"),),
    hint="Each line is classified by itself.",
    ask=lambda given: {"predict_input": {"input_text": _lines(given["text"])}, "top_k": 5},
    read=_classified,
)
PAIR = Trial(
    capability="classify",
    verb="Compare",
    fields=(("text", "First sentence", "The detector was switched on."), ("pair", "Second sentence", "It recorded collisions.")),
    hint="Whether the second sentence follows the first.",
    ask=lambda given: {"predict_input": {"input_text": [given["text"]], "text_pair": [given["pair"]]}, "top_k": 2},
    read=_paired,
)
FILL = Trial(
    capability="fill_mask",
    verb="Fill",
    fields=(("text", _TEXT, "the higgs [MASK] was found at the large hadron [MASK]"),),
    hint="Write [MASK] where words are missing, once or several times.",
    ask=lambda given: {"predict_input": {"input_text": [given["text"]]}, "top_k": 5},
    read=_filled,
)
NER = Trial(
    capability="ner",
    verb="Find entities",
    fields=(("text", _TEXT, "the higgs boson was found at the large hadron collider"),),
    hint="Names are marked in the text.",
    ask=lambda given: {"predict_input": {"input_text": [given["text"]]}},
    read=_marked,
)
ANSWER = Trial(
    capability="answer",
    verb="Answer",
    fields=(("question", "Question", "where is the laboratory ?"), ("context", _TEXT, "the national laboratory is in frascati near rome")),
    hint="The answer is words of the text.",
    ask=lambda given: {"predict_input": {"question": [given["question"]], "context": [given["context"]]}},
    read=_answered,
)
GENERATE = Trial(
    capability="generate",
    verb="Go on",
    fields=(("text", _TEXT, "the higgs boson"),),
    hint="The model goes on with the text.",
    ask=lambda given: {"predict_input": {"input_text": [given["text"]]}, "generate": {"max_new_tokens": 40}},
    read=_generated,
)
EMBED = Trial(
    capability="embed",
    verb="Compare",
    fields=(("text", "One text", "the higgs boson"), ("other", "Another text", "dark matter")),
    hint="How near the vectors of two texts are.",
    ask=lambda given: {"predict_input": {"input_text": [given["text"], given["other"]]}},
    read=_compared,
)
SEARCH = Trial(
    capability="search",
    verb="Search",
    fields=(("text", "What to search for", "oscillations of neutrinos"),),
    hint="The nearest documents, by L2 distance: lower is nearer.",
    ask=lambda given: {"search_input": {"input_text": [given["text"]]}, "top_k": 8},
    read=_found,
)
BY_TASK: Mapping[str, Trial] = {
    "text-classification": CLASSIFY,
    "next-sentence-prediction": PAIR,
    "masked-lm": FILL,
    "token-classification": NER,
    "question-answering": ANSWER,
    "causal-lm": GENERATE,
    "sentence-embedding": EMBED,
    "no-objective": EMBED,
}


def trial_of(kind: str, task: str | None) -> Trial | None:
    """How an entry is tried; None for what only a data set is."""
    return SEARCH if kind == "indexes" else BY_TASK.get(task or "") if kind == "models" else None
