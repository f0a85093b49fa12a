"""The fields of the forms that ask for a training and for a vector store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..contracts import IndexRequest, TrainRequest
from .forms import Field, Form, Group

__all__ = ["build", "train"]

STORAGES = (("", "local"), ("s3", "S3"), ("hugging_face_hub", "Hugging Face Hub"))
OWN_STORAGES = STORAGES[:2]
OBJECTIVES = (
    ("text-classification", "text classification"),
    ("masked-lm", "missing words (masked LM)"),
    ("token-classification", "named entities"),
    ("question-answering", "question answering"),
    ("sentence-embedding", "sentence embedding, for search"),
    ("causal-lm", "continuing texts (causal LM)"),
    ("next-sentence-prediction", "next sentences"),
)
_SPLIT = "Share of the rows that the model is measured on."


def train(datasets: Sequence[Mapping[str, Any]]) -> Form:
    """The form of a training; `datasets` are versions of the catalog, whose paths are offered."""
    paths = [str(one["path"]) for one in datasets]
    return Form(
        contract=TrainRequest,
        groups=(
            Group(
                title="Model",
                fields=(
                    Field(path="model.objective", label="Task", options=OBJECTIVES, start="text-classification"),
                    Field(path="model.path", label="Start from a checkpoint", placeholder="checkpoints/minilm", hint="Its folder in the storage. Leave it empty for a model without a neural network."),
                    Field(path="model.storage_type", label="Where it is", options=STORAGES),
                    Field(path="model.architecture", label="Or without a neural network", options=(("", "no"), ("tfidf-linear", "TF-IDF, linear"), ("tfidf-boosting", "TF-IDF, boosted trees")), hint="Trains in seconds on a CPU."),
                ),
            ),
            Group(
                title="Data set",
                fields=(
                    Field(path="dataset.path", label="Path", suggestions=paths, placeholder="samples/affiliations.tsv", hint="A file, a folder or a pattern; those of the catalog are offered."),
                    Field(path="dataset.storage_type", label="Where it is", options=STORAGES),
                    Field(path="dataset.text_column", label="Column of the text", placeholder="text"),
                    Field(path="dataset.label_column", label="Column of the label", placeholder="label"),
                    Field(path="dataset.train_test_split", label="Held out", number=True, placeholder="0.1", hint=_SPLIT),
                ),
            ),
            Group(
                title="Training",
                fields=(
                    Field(path="model_train.epochs", label="Epochs", number=True, placeholder="3"),
                    Field(path="model_train.batch_size", label="Batch size", number=True, placeholder="32"),
                    Field(path="model_train.optimizer.init_lr", label="Learning rate", number=True, placeholder="5e-5"),
                ),
            ),
            Group(
                title="More settings",
                advanced=True,
                fields=(
                    Field(path="model_train.optimizer.num_warm_steps", label="Warm-up steps", number=True, placeholder="0"),
                    Field(path="model_train.optimizer.weight_decay_rate", label="Weight decay", number=True, placeholder="0.01"),
                    Field(path="model_train.max_length", label="Tokens per text", number=True, hint="The model's own maximum by default."),
                    Field(path="model_train.seed", label="Seed", number=True, placeholder="0"),
                    Field(path="model_train.precision", label="Precision", options=(("", "auto"), ("fp32", "fp32"), ("bf16", "bf16"), ("fp16", "fp16"))),
                    Field(path="model_train.early_stopping.patience", label="Early stopping after", number=True, hint="Epochs without improvement."),
                    Field(path="model_train.deadline_minutes", label="Deadline in minutes", number=True, hint="The run stops then, and publishes what it has."),
                    Field(path="dataset.deduplicate", label="Drop duplicates", options=(("", "exact"), ("normalised", "also nearly the same"))),
                ),
            ),
            Group(
                title="Result",
                fields=(
                    Field(path="model_save.path", label="Save at", placeholder="models/my-model", hint="Its last part is the name in the catalog."),
                    Field(path="model_save.storage_type", label="Where", options=OWN_STORAGES),
                    Field(path="model_save.licence", label="Licence", placeholder="apache-2.0"),
                ),
            ),
        ),
    )  # fmt: skip


def build(models: Sequence[str], datasets: Sequence[Mapping[str, Any]]) -> Form:
    """The form of a vector store; `models` are names of the catalog that make vectors."""
    paths = [str(one["path"]) for one in datasets]
    return Form(
        contract=IndexRequest,
        groups=(
            Group(
                title="Model",
                fields=(
                    Field(path="model.name", label="Model of the catalog", suggestions=models, placeholder="minilm", hint="It makes a vector of each document, and later of each search."),
                    Field(path="model.alias", label="Alias", placeholder="the latest version"),
                ),
            ),
            Group(
                title="Documents",
                fields=(
                    Field(path="dataset.path", label="Path", suggestions=paths, placeholder="samples/abstracts.jsonl", hint="A file, a folder or a pattern; those of the catalog are offered."),
                    Field(path="dataset.storage_type", label="Where it is", options=STORAGES),
                    Field(path="dataset.loader_kwargs.page_content_column", label="Column of the text", placeholder="text"),
                    Field(path="dataset.loader_kwargs.id_column", label="Column of the id", placeholder="the row's number"),
                ),
            ),
            Group(
                title="Result",
                fields=(
                    Field(path="vector_store_save.path", label="Save at", placeholder="indexes/my-documents", hint="Its last part is the name in the catalog."),
                    Field(path="vector_store_save.storage_type", label="Where", options=OWN_STORAGES),
                    Field(path="index_type", label="Index", options=(("", "by size"), ("flat", "flat (exact)"), ("hnsw", "HNSW (graph)"), ("ivf_pq", "IVF-PQ (compressed)"))),
                    Field(path="recall", label="Recall", number=True, placeholder="0.95", hint="The least part of the 10 nearest that searches find."),
                ),
            ),
        ),
    )  # fmt: skip
