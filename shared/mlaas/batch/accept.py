"""What a function does with a request for a file of texts: check it, record the task, and say that it is accepted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .. import models, storage
from ..catalog import Catalog
from ..contracts import ClassifyRequest, FillMaskRequest, SearchRequest
from ..documents import shared
from ..errors import InvalidRequest, within
from ..settings import Settings, current
from ..tasks import Tasks

if TYPE_CHECKING:
    from cloudevents.http import CloudEvent

__all__ = ["CONTRACTS", "OBJECTIVES", "BatchRequest", "accept", "part_of"]

BatchRequest = ClassifyRequest | FillMaskRequest | SearchRequest
CONTRACTS: Mapping[str, type[BatchRequest]] = {"classify": ClassifyRequest, "fill_mask": FillMaskRequest, "search": SearchRequest}
OBJECTIVES = {"classify": "text-classification", "fill_mask": "masked-lm"}


def accept(request: BatchRequest, cause: CloudEvent, publish: bool) -> CloudEvent:
    """Record predictions for a file and return the task's accepted event, the same for a redelivered `cause`.

    Raises NotFound for a model, an index or a data set that is not there, InvalidRequest for what could not work.
    """
    settings = current()
    tasks = Tasks(shared(settings))
    capability = next(name for name, contract in CONTRACTS.items() if isinstance(request, contract))
    if known := tasks.known(capability, cause):
        return known
    if isinstance(request, SearchRequest):
        models.check_store(request.dataset, settings=settings)
    if request.model:
        models.check(request.model, settings=settings)
    if not isinstance(request, SearchRequest):
        _check_objective(request, OBJECTIVES[capability], settings)
    texts = request.dataset_of_texts
    assert texts, "texts in the request are answered, not accepted"
    models.check_dataset(texts.path, texts.storage_type, part=part_of(request), settings=settings)
    if request.output and request.output.path:
        with within("output"):  # a place that cannot be used is better known now than when all is predicted
            storage.exists(request.output.path, request.output.storage_type or "local", settings=settings)
    return tasks.accept(capability, request.model_dump(exclude_none=True), cause, publish=publish)


def part_of(request: BatchRequest) -> str:
    """The field that refers to the texts."""
    return "search_input.dataset" if isinstance(request, SearchRequest) else "predict_input.dataset"


def _check_objective(request: ClassifyRequest | FillMaskRequest, objective: str, settings: Settings) -> None:
    """Refuse what the catalog says already; a model that is named by its path is looked at by the job."""
    ref = request.model
    known = ref.objective
    if ref.name:
        known = Catalog(shared(settings)).resolve("models", ref.name, alias=ref.alias, revision=ref.revision).get("objective", objective)
    if known and known != objective:
        raise InvalidRequest(
            f"the model's objective is {known}", field="model.objective", remedy=f"Name a model whose objective is {objective}."
        )
