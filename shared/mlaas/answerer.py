"""Question answering: questions and texts of any length in, the words of the text that answer them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import timing
from .errors import InvalidRequest
from .predictions import Answer
from .tokens import Encoded
from .windows import Window, windows

if TYPE_CHECKING:
    from .engine import Model

__all__ = ["Best", "answer"]

OBJECTIVE = "question-answering"
OUTPUTS = ("start_logits", "end_logits")


@dataclass
class Best:
    """The likeliest answer among the windows that were seen, as SQuAD's scripts choose it: the largest sum of start and end logit.

    `none` is the smallest such sum of the first token in any window, which stands for "there is no answer"; `total` is the log of
    the sum of the exponentials of all answers' sums.
    """

    max_tokens: int
    logit: float = -np.inf
    start: int = 0
    end: int = 0
    none: float = np.inf
    total: float = -np.inf
    seen: bool = field(default=False)

    def add(self, window: Window, starts: NDArray[Any], ends: NDArray[Any]) -> None:
        """Look at all answers in a window, from its logits (length or more,)."""
        first, last = starts.astype(np.float64), ends.astype(np.float64)
        self.none = min(self.none, float(first[0] + last[0]))
        ranges = [(place, offset) for place, offset in enumerate(window.offsets) if offset is not None]
        if not ranges:
            return
        places = [place for place, _ in ranges]
        first, last = first[places], last[places]
        for more in range(min(self.max_tokens, len(places))):
            sums = first[: len(first) - more] + last[more:]
            top = int(sums.argmax())
            self.total = float(np.logaddexp(self.total, np.logaddexp.reduce(sums)))
            if not self.seen or sums[top] > self.logit:
                self.logit, self.seen = float(sums[top]), True
                self.start, self.end = ranges[top][1][0], ranges[top + more][1][1]


def answer(model: Model, questions: Sequence[str], contexts: Sequence[str], max_answer_tokens: int = 30) -> list[Answer]:
    """One answer for each question, from the context in the same place, or from the only one.

    Long contexts are read in overlapping windows. Raises InvalidRequest for a model that answers no questions, and for a question
    that leaves no room for a context.
    """
    if model.bundle.objective != OBJECTIVE or not set(OUTPUTS) <= set(model.outputs):
        raise InvalidRequest(
            f"the model's objective is {model.bundle.objective}: it answers no questions",
            field="model.objective",
            remedy=f"Name a model whose objective is {OBJECTIVE}.",
        )
    pairs = list(zip(questions, contexts if len(contexts) > 1 else [contexts[0]] * len(questions), strict=True))
    with timing.span("tokenize"):
        parts = [(number, part) for number, pair in enumerate(pairs) for part in _windows(model, number, *pair)]
    best = [Best(max_answer_tokens) for _ in pairs]
    encoded = [Encoded(ids=part.ids, type_ids=part.type_ids, offsets=[], truncated=False) for _, part in parts]
    for indices, (starts, ends), _ in model.run_all(encoded, OUTPUTS):
        for position, start, end in zip(indices, starts, ends, strict=True):
            number, part = parts[position]
            best[number].add(part, start, end)
    may_be_none = model.bundle.config.get("no_answer") is True
    return [_answer(one, context, may_be_none) for one, (_, context) in zip(best, pairs, strict=True)]


def _windows(model: Model, number: int, question: str, context: str) -> list[Window]:
    try:
        return windows(model.tokenizer, context, model.bundle.max_length, before=question)
    except InvalidRequest as error:
        raise InvalidRequest(error.detail, field=f"predict_input.question.{number}", remedy=error.remedy) from None


def _answer(best: Best, context: str, may_be_none: bool) -> Answer:
    if not np.isfinite(best.none):
        raise RuntimeError("the question answering model's output is not finite")
    total = float(np.logaddexp(best.total, best.none)) if may_be_none else best.total
    if not best.seen or (may_be_none and best.none > best.logit):
        return Answer(answer=None, score=float(np.exp(best.none - total)) if best.seen else 1.0, start=None, end=None)
    found = context[best.start : best.end]
    start = best.start + len(found) - len(found.lstrip())  # a byte-level tokenizer counts the space before a word as the word's
    return Answer(answer=context[start : best.end], score=float(np.exp(best.logit - total)), start=start, end=best.end)
