"""How much a mistake in each class costs, as an alternative to drawing rare classes more often. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from ..errors import InvalidRequest

__all__ = ["class_weights"]


def class_weights(
    asked: Literal["balanced", "none"] | Mapping[str, float], labels: Sequence[str], counts: Sequence[int]
) -> tuple[float, ...]:
    """The weight of each class, so that their mean over the rows is 1. `counts` are the training rows of each of `labels`.

    `balanced` weighs a class by 1 / its rows, as scikit-learn does; a label that is not named weighs 1 before the scaling.
    Raises InvalidRequest for a label that no row has.
    """
    if isinstance(asked, Mapping):
        if strange := next((label for label in asked if label not in labels), None):
            shown = ", ".join(label[:100] for label in labels[:50])
            raise InvalidRequest(
                f"no row has the label `{strange[:100]}`", field="dataset.class_weights", remedy=f"The labels are: {shown}."
            )
        raw = [asked.get(label, 1.0) for label in labels]
    else:
        raw = [1.0 / max(1, count) if asked == "balanced" else 1.0 for count in counts]
    scale = sum(counts) / sum(weight * count for weight, count in zip(raw, counts, strict=True))
    return tuple(weight * scale for weight in raw)
