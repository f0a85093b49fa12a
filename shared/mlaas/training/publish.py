"""`mlaas export`: a PyTorch checkpoint becomes an ONNX model in the catalog."""

from __future__ import annotations

from typing import Any

from .. import jobs, storage
from ..catalog import Catalog, name_of
from ..contracts import ModelRef
from ..documents import shared
from ..errors import InvalidRequest
from ..settings import Settings

__all__ = ["export_and_publish"]


def export_and_publish(model: ModelRef, objective: str, save: dict[str, str], name: str | None, settings: Settings) -> dict[str, Any]:
    """Export the checkpoint of `model`, publish it at `save` and return its catalog entry."""
    if not model.path:
        raise InvalidRequest(
            "an export starts from a checkpoint", field="--model", remedy="Name it as local:PATH, s3:BUCKET/KEY or hub:ORG/REPO."
        )
    checkpoint = storage.fetch(model.path, model.storage_type, settings=settings, revision=model.revision)
    from .export import export  # torch, and so after the cheap refusals

    with jobs.workspace(settings) as folder:
        provenance = {"checkpoint": model.path, "storage_type": model.storage_type, "revision": model.revision}
        bundle = export(checkpoint, objective, folder / "bundle", provenance=provenance)
        path = storage.publish(bundle.folder, save["path"], save["storage_type"], bundle.digest[:16], settings=settings)
    return Catalog(shared(settings)).publish(
        "models",
        name_of(save["path"], name),
        bundle.digest,
        {
            "path": path,
            "storage_type": save["storage_type"],
            "objective": bundle.objective,
            "labels": list(bundle.labels),
            "max_length": bundle.max_length,
            "evaluation": {},
            "task_id": None,
        },
    )
