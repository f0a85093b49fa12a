"""The platform's public contract: the request and result models, and their JSON Schema.

Field names are fixed. Unknown fields are refused, with the nearest known name suggested. Everything beyond the fixed
names (`top_k`, `name`, `alias`, `revision`, `score_threshold`, `index_after`, ...) is optional.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from .errors import InvalidRequest
from .objectives import Objective

__all__ = [
    "SCHEMA",
    "Candidate",
    "Classification",
    "ClassifyRequest",
    "ClassifyResult",
    "Condition",
    "Contract",
    "DatasetRef",
    "DatasetSummary",
    "FillMaskRequest",
    "FillMaskResult",
    "FilledText",
    "FilterValue",
    "Hybrid",
    "IndexAfter",
    "IndexRequest",
    "IndexUpdate",
    "LabelScore",
    "LoaderKwargs",
    "ModelRef",
    "ModelRequest",
    "ModelSource",
    "ModelVersion",
    "Neighbour",
    "OutputRef",
    "ParameterSearch",
    "ParameterSpace",
    "Prediction",
    "SearchRequest",
    "SearchResult",
    "Stats",
    "Task",
    "TaskError",
    "TrainRequest",
    "parse",
    "problems",
]

StorageType = Literal["s3", "hugging_face_hub", "local"]
Path_ = Annotated[str, Field(min_length=1, max_length=1024)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$", description="Lowercase letters, digits, `.`, `_` and `-`.")]
Text = Annotated[str, Field(max_length=100_000)]
Bytes = Annotated[int, Field(ge=0, description="Size of the file in bytes, verified when it is read.")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="sha256 of the file in hex, verified when it is read.")]
Column = Annotated[str, Field(min_length=1, max_length=200)]
Licence = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]{0,99}$",
        description="Its licence, as SPDX or Hugging Face name it, e.g. `apache-2.0`; the base model's by default, where that is known.",
    ),
]
SCHEMA = "Correct the field and send the request again; GET / of the function serves the JSON Schema."
TopK = Annotated[int, Field(ge=1, le=1000)]


class Contract(BaseModel):
    """Base of every request and result: no unknown fields, no change after construction."""

    # Built when they are first used: a cold start uses few of them.
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), defer_build=True)

    @property
    def is_long_work(self) -> bool:
        """Whether a function that both answers and accepts has to accept this request."""
        return False


class TokenizerRef(Contract):
    """Where the tokenizer is; the model's own by default."""

    path: Path_
    storage_type: StorageType = "local"


class ModelSource(Contract):
    """Which model: a path in a storage, or a name in the catalog."""

    path: Path_ | None = None
    storage_type: StorageType = "local"
    objective: Objective | None = None
    name: Name | None = Field(None, description="A catalog entry, instead of a path.")
    alias: Name | None = Field(None, description="A catalog alias such as `production`; the latest version by default.")
    revision: str | None = Field(None, max_length=200, description="A version of the catalog entry or a revision on the hub.")

    @model_validator(mode="after")
    def _path_or_name(self) -> ModelSource:
        if (self.path is None) == (self.name is None):
            raise ValueError("give either `path` (with `storage_type`) or `name`")
        return self


class ModelRef(ModelSource):
    """Which model answers, and in which variant: fp32 unless something else is asked for."""

    variant: Literal["fp32", "bf16", "int8", "int8-dynamic", "fp16"] | None = Field(
        None, description="The variant that answers, whatever it loses."
    )
    max_accuracy_loss: float | None = Field(
        None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="The fastest variant may answer that was measured to lose at most this of the model's main metric (0.01: one in a "
        "hundred), on its held-out rows. Without it that of MLAAS_MAX_ACCURACY_LOSS.",
    )

    @model_validator(mode="after")
    def _one_choice(self) -> ModelRef:
        if self.variant is not None and self.max_accuracy_loss is not None:
            raise ValueError("give either `variant` or `max_accuracy_loss`")
        return self


class LoaderKwargs(Contract):
    """How the rows of a data set are read."""

    page_content_column: str = Field("text", min_length=1, max_length=200)
    id_column: str | None = Field(None, max_length=200, description="Column of each row's id; in an index the row number by default.")


Split = Annotated[
    str | None, Field(max_length=200, description='Which split of a folder that `DatasetDict.save_to_disk` wrote; "train" by default.')
]


class DatasetRef(Contract):
    """Texts: a file, a folder, or a pattern such as `shards/*.csv`; CSV, TSV, JSONL, Parquet or Arrow, or a `datasets` folder."""

    path: Path_
    split: Split = None
    storage_type: Literal["s3", "local"] = "local"
    size: Bytes | None = None
    sha256: Sha256 | None = None
    loader_kwargs: LoaderKwargs = LoaderKwargs()


class OutputRef(Contract):
    """Where the predictions for a data set are published; in the platform's exchange unless `path` says otherwise."""

    path: Path_ | None = None
    storage_type: Literal["s3", "local"] | None = Field(None, description="`local` by default; only with `path`.")
    format: Literal["parquet", "jsonl"] = "parquet"
    include_text: bool = Field(True, description="Whether each row of the result holds the text again.")

    @model_validator(mode="after")
    def _storage_of_a_path(self) -> OutputRef:
        if self.storage_type and not self.path:
            raise ValueError("`storage_type` says where `path` is: give `path` as well, or neither")
        return self


Output = Annotated[OutputRef | None, Field(description="Where the result of a `dataset` goes.")]


class PredictInput(Contract):
    """The texts to predict for, or a reference to a file of them."""

    input_text: list[Text] | None = Field(None, min_length=1, max_length=4096)
    dataset: DatasetRef | None = None

    @model_validator(mode="after")
    def _texts_or_dataset(self) -> PredictInput:
        _one_of(self.input_text, self.dataset)
        return self


class ClassifyInput(PredictInput):
    """The texts to classify, or a reference to a file of them."""

    text_pair: list[Text] | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="The second text of each pair, for models that compare two, such as next-sentence-prediction.",
    )

    @model_validator(mode="after")
    def _as_many(self) -> ClassifyInput:
        if self.text_pair is not None and len(self.text_pair) != len(self.input_text or ()):
            raise ValueError("give one `text_pair` for each of `input_text`")
        return self


class SearchInput(Contract):
    """The texts to search for, or a reference to a file of them."""

    input_text: list[Text] | None = Field(None, min_length=1, max_length=256)
    dataset: DatasetRef | None = None

    @model_validator(mode="after")
    def _texts_or_dataset(self) -> SearchInput:
        _one_of(self.input_text, self.dataset)
        return self


def _one_of(input_text: list[str] | None, dataset: DatasetRef | None) -> None:
    if (input_text is None) == (dataset is None):
        raise ValueError("give either `input_text` or `dataset`, a reference to a file")


class VectorStoreRef(Contract):
    """Which vector store: a path in a storage, or a name in the catalog."""

    path: Path_ | None = None
    format: Literal["vector_store"] = "vector_store"
    storage_type: Literal["s3", "local"] = "local"
    name: Name | None = Field(None, description="A catalog entry, instead of a path.")
    alias: Name | None = Field(None, description="A catalog alias; the latest version by default.")
    revision: str | None = Field(None, max_length=200, description="A version of the catalog entry.")

    @model_validator(mode="after")
    def _path_or_name(self) -> VectorStoreRef:
        if (self.path is None) == (self.name is None):
            raise ValueError("give either `path` (with `storage_type`) or `name`")
        return self


class Prediction(Contract):
    """What the requests for predictions have in common: texts are answered at once, a `dataset` of them is long work."""

    @property
    def dataset_of_texts(self) -> DatasetRef | None:
        """The reference to the texts, None if they are in the request."""
        raise NotImplementedError

    @property
    def is_long_work(self) -> bool:
        return self.dataset_of_texts is not None

    @model_validator(mode="after")
    def _output_of_a_dataset(self) -> Prediction:
        if getattr(self, "output", None) and not self.is_long_work:
            raise ValueError("`output` says where the result of a `dataset` goes; texts are answered in the reply")
        return self


class ClassifyRequest(Prediction):
    """Classify texts."""

    tokenizer: TokenizerRef | None = None
    model: ModelRef
    predict_input: ClassifyInput
    top_k: TopK = Field(1, description="Labels returned for each text, best first.")
    score_threshold: float | None = Field(None, ge=0, le=1, description="Leave out labels below this probability.")
    output: Output = None

    @property
    def dataset_of_texts(self) -> DatasetRef | None:
        return self.predict_input.dataset


class FillMaskRequest(Prediction):
    """Fill every mask of every text."""

    tokenizer: TokenizerRef | None = None
    model: ModelRef
    predict_input: PredictInput
    top_k: TopK = Field(5, description="Candidates returned for each mask, best first.")
    output: Output = None

    @property
    def dataset_of_texts(self) -> DatasetRef | None:
        return self.predict_input.dataset


FilterText = Annotated[str, Field(max_length=255)]
FilterNumber = int | float
FilterValue = bool | FilterNumber | FilterText
FilterValues = Annotated[list[FilterValue], Field(min_length=1, max_length=1000)]
Bound = Annotated[FilterNumber | FilterText | None, Field(description="Of numbers, or of texts in the order of their characters.")]


class Condition(Contract):
    """What a field of the metadata must be; everything that is given must hold. A field that is a list is tested item by item."""

    any_of: FilterValues | None = None
    none_of: FilterValues | None = Field(None, description="Documents without the field pass.")
    gt: Bound = None
    gte: Bound = None
    lt: Bound = None
    lte: Bound = None
    exists: bool | None = None

    @model_validator(mode="after")
    def _something(self) -> Condition:
        bounds = [bound for bound in (self.gt, self.gte, self.lt, self.lte) if bound is not None]
        if len({isinstance(bound, str) for bound in bounds}) > 1:
            raise ValueError("give bounds that are all numbers or all texts")
        if not self.model_fields_set:
            raise ValueError('say what the field must be, e.g. {"gte": 2015}')
        return self


class Hybrid(Contract):
    """Search by words as well (BM25), and order what both searches find by reciprocal rank fusion. `score` stays the L2 distance."""

    lexical_weight: float = Field(1.0, ge=0, le=100, description="Weight of the ranks by words beside those by distance.")
    candidates: int = Field(100, ge=1, le=1000, description="How many documents each of the two searches may propose.")
    rank_constant: int = Field(60, ge=1, le=10_000, description="The constant of the fusion: higher lets lower ranks count more.")


class SearchRequest(Prediction):
    """Find the nearest documents of a vector store."""

    tokenizer: TokenizerRef | None = None
    model: ModelRef | None = Field(None, description="The embedding model; the one that built the store by default.")
    dataset: VectorStoreRef
    search_input: SearchInput
    top_k: TopK = Field(10, description="Documents returned for each text, nearest first.")
    score_threshold: float | None = Field(None, ge=0, description="Leave out documents farther away than this L2 distance.")
    filter: dict[Column, FilterValue | FilterValues | Condition] | None = Field(
        None,
        min_length=1,
        max_length=32,
        description="Only documents whose metadata have, in each field named here (`a.b` for nested ones), this value, one of these "
        "values, or what the condition asks for.",
    )
    hybrid: Hybrid | None = None
    output: Output = None

    @property
    def dataset_of_texts(self) -> DatasetRef | None:
        return self.search_input.dataset


class DocumentsRef(Contract):
    """The documents to index: a file, a folder, or a pattern such as `shards/*.csv`; CSV, TSV, JSONL, Parquet or Arrow."""

    path: Path_
    split: Split = None
    storage_type: StorageType = "local"
    size: Bytes | None = None
    sha256: Sha256 | None = None
    loader_kwargs: LoaderKwargs = LoaderKwargs()


class VectorStoreSave(Contract):
    """Where the index is published; its catalog name is `name`, or the last part of `path`."""

    path: Path_
    format: Literal["vector_store"] = "vector_store"
    storage_type: Literal["s3", "local"] = "local"
    name: Name | None = None


IndexType = Annotated[
    Literal["flat", "hnsw", "ivf_pq"] | None,
    Field(description="Exact search, a graph, or cells of compressed vectors; by the number of documents unless it is given."),
]
Recall = Annotated[
    float | None,
    Field(gt=0, le=1, description="The least part of the 10 nearest documents that searches find, measured at the build; 0.95."),
]


class IndexUpdate(Contract):
    """Change the latest version of the index by ids instead of building it anew; what stays is neither embedded nor copied."""

    delete: list[Annotated[str, Field(max_length=1000)]] | None = Field(
        None, min_length=1, max_length=10_000, description="Ids of documents that are removed; ids that are not there are ignored."
    )
    compact: bool = Field(False, description="Merge everything into one index, without what was removed; otherwise done when it pays.")


def _of_an_index(model: ModelRef) -> ModelRef:
    if model.max_accuracy_loss is not None:
        raise ValueError("an index is embedded by one variant, whatever machine does it: name it in `variant`, or leave both out for fp32")
    return model


class IndexRequest(Contract):
    """Embed documents and build a searchable vector store, or update one."""

    tokenizer: TokenizerRef | None = None
    model: ModelRef
    dataset: DocumentsRef | None = Field(
        None, description="Required, but for an `update` that adds nothing. In an update, a document whose id is there replaces that one."
    )
    vector_store_save: VectorStoreSave
    index_type: IndexType = None
    recall: Recall = None
    update: IndexUpdate | None = None

    @model_validator(mode="after")
    def _documents(self) -> IndexRequest:
        if self.update is None and self.dataset is None:
            raise ValueError("`dataset` says which documents are indexed; only an `update` can do without")
        if self.update and self.dataset and not self.dataset.loader_kwargs.id_column:
            raise ValueError("an `update` needs ids: name their column in `dataset.loader_kwargs.id_column`")
        return self

    @field_validator("model")
    @classmethod
    def _one_variant(cls, model: ModelRef) -> ModelRef:
        return _of_an_index(model)


class IndexAfter(Contract):
    """An index to build when the training has succeeded; `model` is the trained one unless another is named."""

    tokenizer: TokenizerRef | None = None
    model: ModelRef | None = None
    dataset: DocumentsRef
    vector_store_save: VectorStoreSave
    index_type: IndexType = None
    recall: Recall = None

    @field_validator("model")
    @classmethod
    def _one_variant(cls, model: ModelRef | None) -> ModelRef | None:
        return model and _of_an_index(model)


class Optimizer(Contract):
    """The optimizer and its schedule: linear warm-up, then linear decay."""

    name: Literal["adamw"] = "adamw"
    init_lr: float = Field(5e-5, gt=0, le=1)
    num_warm_steps: int = Field(0, ge=0, le=1_000_000, description="Optimizer steps of linear warm-up.")
    weight_decay_rate: float = Field(0.01, ge=0, le=1)


class TokenizerTraining(Contract):
    """Train a tokenizer on the data set's training texts."""

    vocab_size: int = Field(30_000, ge=300, le=1_000_000, description="Tokens at most, special ones included.")


class TrainTokenizer(Contract):
    """Where the tokenizer is, or how it is trained; the model's own by default."""

    path: Path_ | None = None
    storage_type: StorageType = "local"
    train: TokenizerTraining | None = Field(None, description="For a model from scratch, instead of a path.")

    @model_validator(mode="after")
    def _path_or_train(self) -> TrainTokenizer:
        if (self.path is None) == (self.train is None):
            raise ValueError("give either `path` (with `storage_type`) or `train`")
        return self


class EarlyStopping(Contract):
    """Stop when the evaluation after each epoch gets no better."""

    patience: int = Field(2, ge=1, le=1000, description="Evaluations in a row without improvement after which the run stops.")
    metric: str = Field("loss", min_length=1, max_length=100, description="A figure of the evaluation, such as `loss` or `accuracy`.")
    min_delta: float = Field(0.0, ge=0, description="What counts as an improvement: more than this.")


class Lora(Contract):
    """Train small matrices beside the frozen weights (LoRA, Hu et al. 2021); they are merged into the weights before the export."""

    rank: int = Field(8, ge=1, le=1024)
    alpha: float = Field(16.0, gt=0, description="The update is scaled by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1)
    target: list[Annotated[str, Field(min_length=1, max_length=200)]] | None = Field(
        None, min_length=1, max_length=64, description="Names of the layers that are adapted, such as `query`; the attention's by default."
    )


class ModelTrain(Contract):
    """How to train."""

    epochs: int = Field(3, ge=1, le=1000)
    batch_size: int = Field(32, ge=1, le=4096)
    optimizer: Optimizer = Optimizer()
    max_length: int | None = Field(None, ge=8, le=8192, description="Tokens per text; the model's own maximum by default.")
    seed: int = Field(0, ge=0, lt=2**32)
    gradient_accumulation: int = Field(1, ge=1, le=4096, description="Batches of one optimizer step.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="What the model computes in; `auto` is bf16 where the hardware has it. Weights are kept in fp32."
    )
    gradient_checkpointing: bool = Field(False, description="Compute activations twice instead of keeping them: less memory, more time.")
    early_stopping: EarlyStopping | None = None
    keep: Literal["best", "last"] | None = Field(
        None, description="Which epoch's weights are published, by the metric of `early_stopping`; `best` with early stopping, else `last`."
    )
    lora: Lora | None = None
    from_scratch: bool = Field(False, description="Begin with random weights: the model's folder needs config.json only.")
    checkpoint_minutes: float = Field(10.0, gt=0, le=1440, description="Minutes between checkpoints, from which a killed run goes on.")
    deadline_minutes: float | None = Field(
        None, gt=0, le=100_000, description="Minutes after which the run stops and publishes what it has."
    )
    processes: int = Field(
        1, ge=1, le=64, description="Processes that share each batch, on one machine or as pods; `batch_size` is that of all of them."
    )

    @field_validator("processes")
    @classmethod
    def _a_row_for_each(cls, processes: int, info: ValidationInfo) -> int:
        if processes > (size := info.data.get("batch_size", processes)):
            raise ValueError(f"{processes} processes cannot share a batch of {size} rows: lower `processes`, or raise `batch_size` to them")
        return processes


class ParameterSpace(Contract):
    """What a parameter may be: a range with both ends, or one of `choices`."""

    low: float | None = None
    high: float | None = None
    log: bool = Field(False, description="Whether the range is searched by its logarithm, as is usual for learning rates.")
    choices: list[bool | int | float | str] | None = Field(None, min_length=2, max_length=100)

    @model_validator(mode="after")
    def _range_or_choices(self) -> ParameterSpace:
        if (self.low is None) != (self.high is None) or (self.low is None) == (self.choices is None):
            raise ValueError("give either `low` and `high`, or `choices`")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError("`low` must be less than `high`")
        if self.log and (self.low is None or self.low <= 0):
            raise ValueError("`log` is for a range above 0")
        return self


class ParameterSearch(Contract):
    """Look for the values of settings that train best. Everything else of the request is the same for all trials, `seed` included."""

    parameters: dict[Annotated[str, Field(max_length=100)], ParameterSpace] = Field(
        min_length=1, max_length=32, description="Ranges or choices by the setting's name, such as `model_train.optimizer.init_lr`."
    )
    trials: int = Field(20, ge=1, le=500, description="Trainings at most.")
    metric: str = Field(
        "loss", min_length=1, max_length=100, description="The figure of the evaluation by which trials are compared, e.g. `macro_f1`."
    )
    direction: Literal["minimize", "maximize"] | None = Field(
        None, description="`minimize` for `loss` and `perplexity`, else `maximize`, by default."
    )
    parallel: int = Field(1, ge=1, le=64, description="Trials at once, each in a process of its own with its share of the cores.")
    prune: bool = Field(True, description="Whether a trial is ended at an epoch at which it is worse than the median of those before it.")
    timeout_minutes: float | None = Field(
        None, gt=0, le=100_000, description="Minutes after which the search ends with the best trial until then."
    )


class Typos(Contract):
    """Typing errors: letters that are swapped, missing, doubled, or those of a key beside. Figures, acronyms and short words stay."""

    probability: float = Field(0.1, gt=0, le=1, description="Of each word of a text to get one slip.")
    per_text: float = Field(1.0, gt=0, le=1, description="Of each text to be touched at all.")


class Augment(Contract):
    """What is done to the training rows anew in each epoch, never to the held-out ones."""

    typos: Typos = Typos()


class CleanUp(Contract):
    """What is repaired in the texts before they are compared, split and trained on; texts that are served are read as they come."""

    mojibake: bool = Field(True, description="Text that was decoded wrongly, such as `UniversitÃ\xa0`, HTML entities, control characters.")
    unicode: Literal["NFC", "NFKC"] | None = Field("NFC", description="The Unicode form; NFKC also takes ligatures and widths away.")
    whitespace: bool = Field(True, description="Runs of white space become one space, and what has no width goes.")
    urls: str | None = Field(
        None, max_length=100, description="What a web address becomes, e.g. `<url>` or an empty text; kept by default."
    )
    emails: str | None = Field(None, max_length=100, description="What an e-mail address becomes; kept by default.")


Weight = Annotated[float, Field(gt=0, le=1e6)]


class TrainDataset(Contract):
    """What to train on: CSV, TSV, JSONL, Parquet or Arrow with named columns; CoNLL files of tagged words; SQuAD JSON.

    One file, a folder, a pattern such as `shards/*.csv`, or a folder that Hugging Face's `datasets` saved.
    """

    path: Path_
    split: Split = None
    storage_type: StorageType = "local"
    size: Bytes | None = None
    sha256: Sha256 | None = None
    train_test_split: float = Field(0.1, gt=0, lt=1, description="Fraction of the rows held out for evaluation.")
    text_column: Column = "text"
    label_column: Column = "label"
    pair_column: Column | None = Field(None, description="The second text of a pair: sentence-embedding, next-sentence-prediction.")
    tokens_column: Column = Field("tokens", description="token-classification: the words of a sentence, a list or a text of words.")
    tags_column: Column = Field("tags", description="token-classification: a tag for each word.")
    question_column: Column = Field("question", description="question-answering.")
    context_column: Column = Field("context", description="question-answering: the text that holds the answer.")
    answers_column: Column = Field("answers", description="question-answering: `{text: [...], answer_start: [...]}`, as SQuAD has it.")
    clean: CleanUp | None = Field(None, description="Repair the texts of `text_column` and `pair_column`.")
    deduplicate: Literal["exact", "normalised"] | None = Field(
        None,
        description="Which rows are dropped as duplicates: the same texts and label (`exact`, the default), or also those that differ in "
        "case, accents, punctuation and spacing only.",
    )
    class_weights: Literal["balanced", "none"] | dict[str, Weight] | None = Field(
        None,
        description="text-classification: weigh mistakes by class instead of drawing rare classes more often: `balanced`, `none` (every "
        "row once, all the same), or weights by label.",
    )
    augment: Augment | None = Field(None, description="text-classification: typing errors in the training rows, other ones in each epoch.")
    misspelt_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="text-classification: evaluate also on the held-out rows with a slip in this share of their words, at least one in "
        "each; with `augment` its `probability` by default.",
    )


class ModelSave(Contract):
    """Where the model is published; its catalog name is `name`, or the last part of `path`."""

    path: Path_
    storage_type: Literal["s3", "local"] = "local"
    name: Name | None = None
    licence: Licence | None = None
    variants: list[Literal["bf16", "int8", "int8-dynamic", "fp16"]] | None = Field(
        None,
        min_length=1,
        max_length=4,
        description="Variants that are made beside fp32 and measured on the held-out rows: what may answer by `max_accuracy_loss`.",
    )


class ModelRequest(Contract):
    """Export a checkpoint to ONNX as it is, and publish it in the catalog."""

    model: ModelSource
    model_save: ModelSave

    @model_validator(mode="after")
    def _objective(self) -> ModelRequest:
        if self.model.objective is None:
            raise ValueError("`model.objective` says what the checkpoint is for, e.g. `text-classification`, or `no-objective`")
        return self


class TrainModelRef(ModelSource):
    """What to train: a checkpoint, or an architecture that needs none."""

    architecture: Literal["tfidf-linear", "tfidf-boosting"] | None = Field(
        None, description="text-classification without a neural network, instead of a path: TF-IDF and a linear model or gradient boosting."
    )

    @model_validator(mode="after")
    def _path_or_name(self) -> TrainModelRef:
        if (self.path is None) + (self.name is None) + (self.architecture is None) != 2:
            raise ValueError("give one of `path` (with `storage_type`), `name` and `architecture`")
        return self


class TrainRequest(Contract):
    """Train a model, export it to ONNX and publish it in the catalog."""

    tokenizer: TrainTokenizer | None = None
    model: TrainModelRef
    model_train: ModelTrain = ModelTrain()
    dataset: TrainDataset
    model_save: ModelSave
    index_after: list[IndexAfter] = Field(default_factory=list, max_length=16)
    search: ParameterSearch | None = Field(None, description="Search for the best settings, and publish the model trained with them.")

    @model_validator(mode="after")
    def _objective(self) -> TrainRequest:
        if self.model.objective in (None, "no-objective"):
            raise ValueError("`model.objective` says what to train for, e.g. `text-classification` or `masked-lm`")
        return self


class ModelVersion(Contract):
    """Which model answered."""

    digest: str = Field(description="sha256 of the model's files.")
    objective: str
    name: str | None = None
    version: str | None = None
    variant: str | None = Field(
        None, description="In which variant: fp32, bf16, int8, int8-dynamic, fp16. Of an index, that of the vectors in it."
    )
    provider: str | None = Field(None, description="ONNX Runtime's provider that computed the answer.")


class LabelScore(Contract):
    """A label and its probability."""

    label: str
    score: float


class Classification(Contract):
    """What one text was classified as. `scores` holds the `top_k` labels, best first."""

    label: str | None = None
    score: float | None = None
    scores: list[LabelScore]
    truncated: bool = Field(description="The text was longer than the model's maximum and its end was not read.")


class ClassifyResult(Contract):
    """One prediction for each text, in the order of the texts."""

    predictions: list[Classification]
    model: ModelVersion


class Candidate(Contract):
    """A token that may stand at a mask, and its probability."""

    token: str
    probability: float


class FilledText(Contract):
    """Candidates for each mask of one text, in the order of the masks, and the text with the best ones filled in."""

    masks: list[list[Candidate]]
    filled: str
    truncated: bool


class FillMaskResult(Contract):
    """One prediction for each text, in the order of the texts."""

    predictions: list[FilledText]
    model: ModelVersion


class Neighbour(Contract):
    """A document near the query. `score` is the L2 distance: lower is nearer."""

    id: str
    score: float
    text: str
    metadata: dict[str, Any]
    fusion_score: float | None = Field(None, description="Of a hybrid search, whose results are in its order: higher is better.")


class SearchResult(Contract):
    """Nearest documents of each text, in the order of the texts."""

    results: list[list[Neighbour]]
    truncated: list[bool]
    index: ModelVersion
    model: ModelVersion


class Stats(Contract):
    """Times of a task: instants in ISO 8601 UTC, durations in seconds."""

    model_config = ConfigDict(extra="allow", frozen=True)

    submitted: str
    started: str | None = None
    finished: str | None = None
    heartbeat: str | None = None
    elapsed: float | None = None
    attempts: int = 0
    phases: dict[str, float] | None = None


class History(Contract):
    """Figures per epoch, and per `steps` optimizer steps."""

    model_config = ConfigDict(extra="allow", frozen=True)

    loss: list[float] = []
    accuracy: list[float] = []


class DatasetSummary(Contract):
    """What was trained on or indexed."""

    model_config = ConfigDict(extra="allow", frozen=True)

    samples_train: int | None = None
    samples_test: int | None = None
    tokens: int | None = None


class TaskError(Contract):
    """Why a task failed."""

    detail: str
    field: str | None = None
    remedy: str | None = None
    error_id: str | None = None


class Progress(Contract):
    """How far a running task is."""

    model_config = ConfigDict(extra="allow", frozen=True)

    phase: str = "waiting"
    percent: float = 0.0
    eta: float | None = Field(None, description="Seconds left, estimated.")


class Task(Contract):
    """A training run, an index build or a prediction for a data set: what was asked, how far it is, what came of it."""

    task_id: str
    task_status: Literal["accepted", "running", "succeeded", "failed", "cancelled"]
    capability: Literal["train", "model", "index", "classify", "fill_mask", "search"]
    owner: str | None = Field(None, description="Whose it is: a subject, or `group:NAME`; nobody's but the administrators' by default.")
    asked_by: str | None = Field(None, description="The subject of who asked for it, where that is known.")
    request: dict[str, Any]
    stats: Stats
    progress: Progress = Progress()
    history: History = History()
    evaluation: dict[str, Any] = {}
    dataset: DatasetSummary = DatasetSummary()
    result: dict[str, Any] | None = None
    error: TaskError | None = None
    omitted: list[str] | None = Field(None, description="Parts that were too large for this event; the task has them.")


C = TypeVar("C", bound=Contract)


def parse(contract: type[C], data: object) -> C:
    """`data` as a `contract`. Raises InvalidRequest naming the first offending field and what to do about it."""
    if not isinstance(data, dict):
        raise InvalidRequest(
            "the data must be a JSON object", field="$", remedy=f"Send an object with the fields {', '.join(contract.model_fields)}."
        )
    try:
        return contract.model_validate(data)
    except ValidationError as error:
        raise _problems(contract, error)[0] from None


def problems(contract: type[Contract], data: dict[str, Any]) -> list[InvalidRequest]:
    """All that keeps `data` from being a `contract`, each with its field and what to do; the one that `parse` raises comes first."""
    try:
        contract.model_validate(data)
    except ValidationError as error:
        return _problems(contract, error)
    return []


def _problems(contract: type[Contract], error: ValidationError) -> list[InvalidRequest]:
    found = error.errors(include_url=False, include_input=False)
    found.sort(key=lambda one: one["type"] != "extra_forbidden")  # a misspelt name explains a missing one
    fields = [".".join(str(part) for part in one["loc"]) or "$" for one in found]
    return [
        InvalidRequest(_detail(one["type"], field, one["msg"]), field=field, remedy=_remedy(contract, one))
        for one, field in zip(found, fields, strict=True)
    ]


def _detail(kind: str, field: str, message: str) -> str:
    return {"extra_forbidden": f"`{field}` is not a field of this request", "missing": f"`{field}` is required"}.get(
        kind, f"`{field}`: {message.removeprefix('Value error, ')}"
    )


def _remedy(contract: type[Contract], error: Any) -> str:
    loc: tuple[Any, ...] = error["loc"]
    if error["type"] == "extra_forbidden":
        known = list(_model_at(contract, loc[:-1]).model_fields)
        given = str(loc[-1])
        near = difflib.get_close_matches(given, known, n=1, cutoff=0.5) or [name for name in known if given in name]
        return f"Did you mean `{near[0]}`?" if near else f"Known fields here: {', '.join(known)}."
    return SCHEMA


def _model_at(contract: type[Contract], loc: tuple[Any, ...]) -> type[Contract]:
    for part in loc:
        if isinstance(part, str) and part in contract.model_fields:
            contract = next(_contracts_in(contract.model_fields[part].annotation), contract)
    return contract


def _contracts_in(annotation: Any) -> Iterator[type[Contract]]:
    if isinstance(annotation, type) and issubclass(annotation, Contract):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _contracts_in(argument)
