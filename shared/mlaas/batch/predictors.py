"""From a request to what predicts: texts in, one row of columns for each out, with the Parquet schema of the result."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import classifier, embedder, mask_filler, models
from ..contracts import ClassifyRequest, FillMaskRequest, ModelVersion, SearchRequest
from ..jobs import Job
from .accept import BatchRequest

__all__ = ["Predictor", "load", "schema"]

Columns = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """What predicts. `versions` are what answers, as a result names it: `model`, and `index` for a search; `tokenizer` is its sha256.

    `predict` gives a row of the columns `fields` (name to Parquet type) for each text.
    """

    versions: Mapping[str, ModelVersion]
    tokenizer: str
    fields: Mapping[str, Any]
    predict: Callable[[Sequence[str]], list[Columns]]

    @property
    def digests(self) -> dict[str, str]:
        """sha256 of everything that the predictions depend on, the texts aside; and the model's variant."""
        digests = {name: version.digest for name, version in self.versions.items()}
        return {"tokenizer": self.tokenizer, **digests, "variant": self.versions["model"].variant or ""}


def load(request: BatchRequest, job: Job) -> Predictor:
    """The loaded model, and index. Raises NotFound, InvalidRequest or Unavailable."""
    if isinstance(request, ClassifyRequest):
        return _classifier(request, job)
    if isinstance(request, FillMaskRequest):
        return _mask_filler(request, job)
    return _searcher(request, job)


def schema(request: BatchRequest, predictor: Predictor) -> Any:
    """The pyarrow schema of the result: `row`, `id` and `text` where they are asked for, and the predictor's columns."""
    import pyarrow

    texts = request.dataset_of_texts
    first = [("row", pyarrow.int64())]
    if texts and texts.loader_kwargs.id_column:
        first.append(("id", pyarrow.string()))
    if not request.output or request.output.include_text:
        first.append(("text", pyarrow.string()))
    return pyarrow.schema([*first, *predictor.fields.items()])


def _classifier(request: ClassifyRequest, job: Job) -> Predictor:
    import pyarrow

    loaded = models.load(request.model, request.tokenizer, settings=job.settings, progress=job.downloading)
    fields = {"label": pyarrow.string(), "score": pyarrow.float64(), "truncated": pyarrow.bool_()}
    if request.top_k > 1:
        fields["scores"] = pyarrow.list_(_struct(label=pyarrow.string(), score=pyarrow.float64()))

    def predict(texts: Sequence[str]) -> list[Columns]:
        found = classifier.classify(loaded.model, texts, request.top_k, request.score_threshold)
        return [one.model_dump(include=set(fields)) for one in found]

    return Predictor(versions={"model": loaded.version}, tokenizer=_tokenizer(loaded), fields=fields, predict=predict)


def _mask_filler(request: FillMaskRequest, job: Job) -> Predictor:
    import pyarrow

    loaded = models.load(request.model, request.tokenizer, settings=job.settings, progress=job.downloading)
    candidate = _struct(token=pyarrow.string(), probability=pyarrow.float64())
    fields = {"filled": pyarrow.string(), "masks": pyarrow.list_(pyarrow.list_(candidate)), "truncated": pyarrow.bool_()}

    def predict(texts: Sequence[str]) -> list[Columns]:
        return [one.model_dump() for one in mask_filler.fill_masks(loaded.model, texts, request.top_k)]

    return Predictor(versions={"model": loaded.version}, tokenizer=_tokenizer(loaded), fields=fields, predict=predict)


def _searcher(request: SearchRequest, job: Job) -> Predictor:
    import pyarrow

    index = models.load_store(request.dataset, settings=job.settings)
    loaded = models.load_for(index, request.model, request.tokenizer, settings=job.settings, progress=job.downloading)
    neighbour = _struct(id=pyarrow.string(), score=pyarrow.float64(), text=pyarrow.string())
    fields = {"neighbours": pyarrow.list_(neighbour), "truncated": pyarrow.bool_()}

    def predict(texts: Sequence[str]) -> list[Columns]:
        vectors, truncated = embedder.embed(loaded.model, texts)
        results = index.store.answer(request, texts, vectors)
        return [
            {"neighbours": [one.model_dump(include={"id", "score", "text"}) for one in near], "truncated": cut}
            for near, cut in zip(results, truncated, strict=True)
        ]

    return Predictor(
        versions={"model": loaded.version, "index": index.version}, tokenizer=_tokenizer(loaded), fields=fields, predict=predict
    )


def _tokenizer(loaded: models.LoadedModel) -> str:
    """sha256 of the tokenizer in use: a request may name another one than the model's own."""
    return hashlib.sha256(loaded.model.tokenizer.to_str().encode()).hexdigest()


def _struct(**fields: Any) -> Any:
    import pyarrow

    return pyarrow.struct(list(fields.items()))
