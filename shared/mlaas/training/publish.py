"""How a bundle becomes a version in the catalog: after a training, and by `mlaas export` from a PyTorch checkpoint. Imports no torch."""

from __future__ import annotations

from typing import Any

from .. import jobs, storage
from ..catalog import Catalog, name_of
from ..contracts import ModelSave, ModelSource
from ..documents import shared
from ..errors import InvalidRequest
from ..settings import Settings
from ..storage import manifests
from .card import Lineage, describe
from .outcome import Outcome

__all__ = ["export_and_publish", "publish"]


def publish(outcome: Outcome, save: ModelSave, settings: Settings, lineage: Lineage = Lineage()) -> dict[str, Any]:  # noqa: B008 - frozen
    """Publish the bundle of `outcome`, with its card, as an immutable version where `save` says, and return its catalog entry."""
    bundle, card = outcome.bundle, describe(outcome, save, lineage)
    card.write(bundle.folder)
    path = storage.publish(bundle.folder, save.path, save.storage_type, bundle.digest[:16], settings=settings)
    entry = {
        "path": path,
        "storage_type": save.storage_type,
        "objective": bundle.objective,
        "labels": list(bundle.labels),
        "max_length": bundle.max_length,
        "evaluation": outcome.evaluation,
        "task_id": lineage.task_id,
        "card": card.entry(),
        "files": manifests.table(manifests.describe(bundle.folder, manifests.files_of(bundle.folder))),
    }
    catalog = Catalog(shared(settings))
    if lineage.data_sha256 and (dataset := catalog.with_digest("datasets", lineage.data_sha256)):
        entry["dataset"] = {"name": dataset["name"], "version": dataset["version"]}
    return catalog.publish("models", name_of(save.path, save.name), bundle.digest, entry)


def export_and_publish(
    model: ModelSource, objective: str, save: ModelSave, settings: Settings, progress: storage.Progress | None = None
) -> dict[str, Any]:
    """Export the checkpoint of `model`, publish it and return its catalog entry; `progress` is told of a download."""
    if not model.path:
        raise InvalidRequest(
            "an export starts from a checkpoint", field="--model", remedy="Name it as local:PATH, s3:BUCKET/KEY or hub:ORG/REPO."
        )
    checkpoint = storage.fetch(model.path, model.storage_type, settings=settings, revision=model.revision, progress=progress)
    from .export import export  # torch, and so after the cheap refusals

    with jobs.workspace(settings) as folder:
        provenance = {"checkpoint": model.path, "storage_type": model.storage_type, "revision": model.revision}
        bundle = export(checkpoint, objective, folder / "bundle", provenance=provenance)
        return publish(Outcome(bundle=bundle, history={}, evaluation={}, dataset={}, provenance=bundle.provenance), save, settings)
