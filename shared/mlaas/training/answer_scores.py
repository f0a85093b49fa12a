"""Exact match and F1 of answers, as SQuAD's evaluation scripts compute them (Rajpurkar et al. 2016 and 2018)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

__all__ = ["exact_match", "f1", "normal"]

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normal(answer: str) -> str:
    """In lower case, without punctuation, articles and superfluous spaces."""
    return " ".join(ARTICLES.sub(" ", answer.lower().translate(PUNCTUATION)).split())


def exact_match(predicted: str, answers: Sequence[str]) -> float:
    """1 if `predicted` is one of `answers`, 0 otherwise; the answer is the empty text where there is none."""
    return float(any(normal(predicted) == normal(one) for one in answers or [""]))


def f1(predicted: str, answers: Sequence[str]) -> float:
    """The largest overlap in words between `predicted` and one of `answers`."""
    return max(_overlap(normal(predicted).split(), normal(one).split()) for one in answers or [""])


def _overlap(predicted: list[str], actual: list[str]) -> float:
    if not predicted or not actual:
        return float(predicted == actual)
    common = (Counter(predicted) & Counter(actual)).total()
    return 2 * common / (len(predicted) + len(actual))
