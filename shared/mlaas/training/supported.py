"""Which objectives can be trained for. Imports no torch: the train function asks before anything is recorded."""

from __future__ import annotations

from ..contracts import TrainRequest
from ..errors import InvalidRequest

__all__ = [
    "FIGURES",
    "SCRATCH",
    "SUPPORTED",
    "check",
    "check_architecture",
    "check_columns",
    "check_data",
    "check_metric",
    "check_processes",
    "check_scratch",
    "check_variants",
]

# Objective -> the module whose `prepare(Preparation) -> Task` trains for it.
SUPPORTED = {
    "text-classification": "text_classification",
    "masked-lm": "masked_lm",
    "token-classification": "token_classification",
    "question-answering": "question_answering",
    "sentence-embedding": "sentence_embedding",
    "causal-lm": "causal_lm",
    "next-sentence-prediction": "next_sentence",
}

# Figures by which a run may be judged while it goes on, beside `loss` and `accuracy`.
FIGURES = {
    "text-classification": ("macro_f1", "accuracy_named"),
    "masked-lm": ("perplexity",),
    "token-classification": ("f1", "precision", "recall", "macro_f1"),
    "question-answering": ("exact_match", "f1"),
    "sentence-embedding": ("mrr", "recall_at_1", "recall_at_5", "recall_at_10"),
    "causal-lm": ("perplexity",),
    "next-sentence-prediction": ("f1", "macro_f1"),
}
# Fields of `dataset` for classes only, and those for texts whose words nothing refers to; the objectives whose words are referred to.
OF_CLASSES = ("augment", "class_weights", "misspelt_rate")
OF_TEXTS = ("clean", "deduplicate")
PLACED = ("token-classification", "question-answering")
# Objectives that a model can learn from texts alone, and so from nothing.
SCRATCH = ("masked-lm", "causal-lm")
WHOLE = ("sentence-embedding",)  # objectives whose loss of a row depends on the other rows of its batch


def check_architecture(request: TrainRequest) -> None:
    """Raise InvalidRequest where a model without a neural network is asked for something that only those have."""
    if request.model.architecture is None:
        return
    if request.model.objective != "text-classification":
        raise InvalidRequest(
            f"`{request.model.architecture}` is for text-classification", field="model.objective", remedy="Use `text-classification`."
        )
    if request.tokenizer is not None:
        raise InvalidRequest(f"`{request.model.architecture}` has no tokenizer", field="tokenizer", remedy="Leave it out.")
    if request.model_save.variants:
        raise InvalidRequest(
            f"`{request.model.architecture}` has no smaller variants", field="model_save.variants", remedy="Leave it out: it is small."
        )
    if others := sorted(request.model_train.model_fields_set - {"seed"}):
        raise InvalidRequest(
            f"`{request.model.architecture}` is not trained by gradient descent over batches",
            field=f"model_train.{others[0]}",
            remedy="Leave it out: only `seed` counts.",
        )


def check_variants(request: TrainRequest) -> None:
    """Raise InvalidRequest for a variant that such a model cannot have."""
    if request.model.objective == "causal-lm" and "bf16" in (request.model_save.variants or ()):
        raise InvalidRequest(
            "a model that writes texts is not computed by OpenVINO, which bf16 is for",
            field="model_save.variants",
            remedy="Leave bf16 out.",
        )


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


def check_columns(request: TrainRequest) -> None:
    """Raise InvalidRequest for an objective that learns from pairs without the name of their second column."""
    if request.model.objective == "sentence-embedding" and request.dataset.pair_column is None:
        raise InvalidRequest(
            "the pairs' second column is not named",
            field="dataset.pair_column",
            remedy="Name it, e.g. `text_column: title` and `pair_column: abstract`.",
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


def check_processes(request: TrainRequest) -> None:
    """Raise InvalidRequest for processes that cannot share the training."""
    if request.model_train.processes == 1:
        return
    if request.search:
        raise InvalidRequest(
            "the trials of a search are processes already",
            field="model_train.processes",
            remedy="Leave it out, and set how many run at once with `search.parallel`.",
        )
    if request.model.objective in WHOLE:
        raise InvalidRequest(
            f"`{request.model.objective}` compares all rows of a batch with each other, so that no process can do with a share of them",
            field="model_train.processes",
            remedy="Leave it out.",
        )


def check_data(request: TrainRequest) -> None:
    """Raise InvalidRequest for what is asked of the data where the objective has no use for it."""
    objective = str(request.model.objective)
    asked = {name for name in (*OF_CLASSES, *OF_TEXTS) if getattr(request.dataset, name) is not None}
    if objective != "text-classification" and (found := sorted(asked & set(OF_CLASSES))):
        raise InvalidRequest(
            f"`{found[0]}` is for text-classification, not for `{objective}`", field=f"dataset.{found[0]}", remedy="Leave it out."
        )
    if objective in PLACED and (found := sorted(asked & set(OF_TEXTS))):
        raise InvalidRequest(
            f"the texts of `{objective}` stay as they are: its words and answers stand at places in them",
            field=f"dataset.{found[0]}",
            remedy="Leave it out, and clean the data set itself.",
        )


def check(objective: str) -> None:
    """Raise InvalidRequest, naming those that are supported, unless `objective` can be trained for."""
    if objective not in SUPPORTED:
        raise InvalidRequest(
            f"training for `{objective}` is not supported", field="model.objective", remedy=f"Use one of: {', '.join(SUPPORTED)}."
        )
