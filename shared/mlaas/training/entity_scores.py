"""Precision, recall and F1 of entities, as CoNLL's conlleval and seqeval's default mode compute them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..entities import Span

__all__ = ["EntityCounts"]


@dataclass(frozen=True)
class EntityCounts:
    """How many entities of each type there are, were predicted, and were predicted with the right words and the right type."""

    actual: Counter[str] = field(default_factory=Counter)
    predicted: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)

    def add(self, actual: Iterable[Span], predicted: Iterable[Span]) -> None:
        """Count one sentence."""
        known, found = set(actual), set(predicted)
        self.actual.update(one.label for one in known)
        self.predicted.update(one.label for one in found)
        self.right.update(one.label for one in known & found)

    def figures(self) -> dict[str, Any]:
        """Micro averages, the macro F1 over the types that occur, and the figures of each type."""
        per_type = {
            label: {**_figures(self.right[label], self.predicted[label], self.actual[label]), "support": self.actual[label]}
            for label in sorted(self.actual | self.predicted)
        }
        macro = sum(one["f1"] for one in per_type.values()) / max(1, len(per_type))
        return {
            **_figures(self.right.total(), self.predicted.total(), self.actual.total()),
            "macro_f1": macro,
            "per_type": per_type,
            "entities": self.actual.total(),
        }


def _figures(right: int, predicted: int, actual: int) -> dict[str, float]:
    return {
        "precision": right / predicted if predicted else 0.0,
        "recall": right / actual if actual else 0.0,
        "f1": 2 * right / (predicted + actual) if predicted + actual else 0.0,
    }
