"""Which objectives can be trained for. Imports no torch: the train function asks before anything is recorded."""

from __future__ import annotations

from ..errors import InvalidRequest

__all__ = ["SUPPORTED", "check"]

# Objective -> the module whose `prepare(Preparation) -> Task` trains for it.
SUPPORTED = {"text-classification": "text_classification", "masked-lm": "masked_lm"}


def check(objective: str) -> None:
    """Raise InvalidRequest, naming those that are supported, unless `objective` can be trained for."""
    if objective not in SUPPORTED:
        raise InvalidRequest(
            f"training for `{objective}` is not supported", field="model.objective", remedy=f"Use one of: {', '.join(SUPPORTED)}."
        )
