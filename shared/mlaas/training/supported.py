"""Which objectives can be trained for. Imports no torch: the train function asks before anything is recorded."""

from __future__ import annotations

from ..contracts import TrainRequest
from ..errors import InvalidRequest

__all__ = ["FIGURES", "SCRATCH", "SUPPORTED", "check", "check_metric", "check_scratch"]

# Objective -> the module whose `prepare(Preparation) -> Task` trains for it.
SUPPORTED = {
    "text-classification": "text_classification",
    "masked-lm": "masked_lm",
    "token-classification": "token_classification",
    "question-answering": "question_answering",
}

# Figures by which a run may be judged while it goes on, beside `loss` and `accuracy`.
FIGURES = {
    "text-classification": ("macro_f1", "accuracy_named"),
    "masked-lm": ("perplexity",),
    "token-classification": ("f1", "precision", "recall", "macro_f1"),
    "question-answering": ("exact_match", "f1"),
}
# Objectives that a model can learn from texts alone, and so from nothing.
SCRATCH = ("masked-lm", "causal-lm")


def check_scratch(request: TrainRequest) -> None:
    """Raise InvalidRequest for random weights where they make no sense, and for a new tokenizer under old weights."""
    scratch, objective = request.model_train.from_scratch, str(request.model.objective)
    if scratch and objective not in SCRATCH:
        raise InvalidRequest(
            f"`{objective}` is not learnt from scratch",
            field="model_train.from_scratch",
            remedy=f"Train for {' or '.join(SCRATCH)} first, then train what comes of it for `{objective}`.",
        )
    if request.tokenizer and request.tokenizer.train and not scratch:
        raise InvalidRequest(
            "a new tokenizer does not fit a model that was trained with another",
            field="tokenizer.train",
            remedy="Set `model_train.from_scratch`, or leave the tokenizer out.",
        )


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
