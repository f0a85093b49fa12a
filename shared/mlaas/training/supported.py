"""Which objectives can be trained for. Imports no torch: the train function asks before anything is recorded."""

from __future__ import annotations

from ..contracts import TrainRequest
from ..errors import InvalidRequest

__all__ = ["FIGURES", "SUPPORTED", "check", "check_metric"]

# Objective -> the module whose `prepare(Preparation) -> Task` trains for it.
SUPPORTED = {"text-classification": "text_classification", "masked-lm": "masked_lm"}

# Figures by which a run may be judged while it goes on, beside `loss` and `accuracy`.
FIGURES = {"text-classification": ("macro_f1", "accuracy_named"), "masked-lm": ("perplexity",)}


def check_metric(request: TrainRequest) -> None:
    """Raise InvalidRequest if the metric of early stopping is no figure of the objective, before hours are spent."""
    stopping, known = request.model_train.early_stopping, FIGURES.get(str(request.model.objective))
    if stopping and known is not None and stopping.metric not in ("loss", "accuracy", *known):
        raise InvalidRequest(
            f"the evaluation of `{request.model.objective}` has no figure `{stopping.metric}`",
            field="model_train.early_stopping.metric",
            remedy=f"Use one of: {', '.join(('loss', 'accuracy', *known))}.",
        )


def check(objective: str) -> None:
    """Raise InvalidRequest, naming those that are supported, unless `objective` can be trained for."""
    if objective not in SUPPORTED:
        raise InvalidRequest(
            f"training for `{objective}` is not supported", field="model.objective", remedy=f"Use one of: {', '.join(SUPPORTED)}."
        )
