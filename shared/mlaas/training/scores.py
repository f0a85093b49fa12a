"""Figures of a classifier over held-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["classification_figures", "confusion"]


def confusion(actual: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """How often each class [actual][predicted] was taken for each."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (np.asarray(actual), np.asarray(predicted)), 1)
    return matrix


def classification_figures(matrix: NDArray[np.int64], labels: Sequence[str], *, unnamed: str | None = None) -> dict[str, Any]:
    """Accuracy, macro F1 over the classes that occur, precision, recall and F1 per class, and the confusion matrix [actual][predicted].

    `accuracy_named` is the accuracy over the rows whose label is not `unnamed`, where there are such rows and such a label.
    """
    hits, support, called = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    precision, recall = _ratio(hits, called), _ratio(hits, support)
    f1 = _ratio(2 * hits, support + called)
    occurs = (support + called) > 0
    figures: dict[str, Any] = {
        "accuracy": float(hits.sum() / max(1, matrix.sum())),
        "macro_f1": float(f1[occurs].mean()) if occurs.any() else 0.0,
        "per_class": {
            label: {
                "precision": float(precision[each]),
                "recall": float(recall[each]),
                "f1": float(f1[each]),
                "support": int(support[each]),
            }
            for each, label in enumerate(labels)
        },
        "confusion": {"labels": list(labels), "matrix": matrix.tolist()},
    }
    if unnamed in labels and (named := int(support.sum() - support[labels.index(unnamed)])):
        figures["accuracy_named"] = float((hits.sum() - hits[labels.index(unnamed)]) / named)
    return figures


def _ratio(part: np.ndarray[Any, Any], whole: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0))
