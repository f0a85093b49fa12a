"""Named entities: texts of any length in, entities with their labels, probabilities and places out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import entities, timing
from .errors import InvalidRequest
from .predictions import Entity, RecognizedText
from .tokens import Encoded
from .windows import Window, windows

if TYPE_CHECKING:
    from .engine import Model

__all__ = ["recognize"]

OBJECTIVE = "token-classification"


@dataclass(frozen=True, order=True)
class _Word:
    """A word's tag as one window sees it. `inside`: how many tokens it is from the window's nearer end."""

    inside: int
    tag: int
    probability: float
    start: int
    end: int


def recognize(model: Model, texts: Sequence[str], score_threshold: float | None = None) -> list[RecognizedText]:
    """The entities of each text, without those below `score_threshold`.

    A word's tag is read at its first token. Long texts are read in overlapping windows; of two that see a word, the one in which
    it lies farther from the end counts. Raises InvalidRequest for a model that tags no words.
    """
    if model.bundle.objective != OBJECTIVE:
        raise InvalidRequest(
            f"the model's objective is {model.bundle.objective}: it finds no entities",
            field="model.objective",
            remedy=f"Name a model whose objective is {OBJECTIVE}.",
        )
    with timing.span("tokenize"):
        parts = [(index, part) for index, text in enumerate(texts) for part in windows(model.tokenizer, text, model.bundle.max_length)]
    words: list[dict[int, _Word]] = [{} for _ in texts]
    encoded = [Encoded(ids=part.ids, type_ids=part.type_ids, offsets=[], truncated=False) for _, part in parts if part.ids]
    parts = [each for each in parts if each[1].ids]
    for indices, logits, _ in model.run(encoded, output="logits" if "logits" in model.outputs else None):
        for position, rows in zip(indices, logits, strict=True):
            index, part = parts[position]
            for number, word in _words(part, texts[index], rows).items():
                words[index][number] = max(words[index].get(number, word), word)
    return [_recognized(text, found, model.bundle.labels, score_threshold) for text, found in zip(texts, words, strict=True)]


def _words(window: Window, text: str, logits: NDArray[Any]) -> dict[int, _Word]:
    """The words of a window by their number, from logits (length or more, tags)."""
    probabilities = _probabilities(logits[: len(window.ids)])
    found: dict[int, _Word] = {}
    for place, (number, offset) in enumerate(zip(window.words, window.offsets, strict=True)):
        if number is None or offset is None:
            continue
        if number in found:
            first = found[number]
            found[number] = _Word(first.inside, first.tag, first.probability, first.start, max(first.end, offset[1]))
        else:
            start = offset[0] + len(text[offset[0] : offset[1]]) - len(text[offset[0] : offset[1]].lstrip())
            tag = int(probabilities[place].argmax())
            found[number] = _Word(min(place, len(window.ids) - place), tag, float(probabilities[place, tag]), start, offset[1])
    return found


def _probabilities(logits: NDArray[Any]) -> NDArray[np.float64]:
    values = logits.astype(np.float64)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise RuntimeError(f"the tagger's output of shape {values.shape} is not a row of finite numbers for each token")
    exponents = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def _recognized(text: str, found: dict[int, _Word], labels: Sequence[str], threshold: float | None) -> RecognizedText:
    words = [found[number] for number in sorted(found)]
    tags = [labels[word.tag] if word.tag < len(labels) else f"LABEL_{word.tag}" for word in words]
    made = []
    for span in entities.spans(tags):
        inside = words[span.start : span.end]
        score = sum(word.probability for word in inside) / len(inside)
        start, end = inside[0].start, inside[-1].end
        if threshold is None or score >= threshold:
            made.append(Entity(text=text[start:end], label=span.label, score=score, start=start, end=end))
    return RecognizedText(entities=made)
