"""What a training reads, brought to this machine. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from .. import patience, references, storage
from ..contracts import TrainRequest
from ..settings import Settings

__all__ = ["fetched"]

T = TypeVar("T")


def fetched(
    request: TrainRequest,
    settings: Settings,
    progress: Callable[[int, int], None] | None = None,
    persist: Callable[[Callable[[], Any]], Any] | None = None,
) -> dict[str, Any]:
    """The paths of the `Sources` of a run by name; of `table` alone where it starts from no checkpoint.

    `persist` makes a call again while its storage is away, for MLAAS_JOB_PATIENCE by default; `progress` is that of `storage.fetch`.
    """
    keep_on = persist or (lambda call: patience.persist(call, settings.job_patience))

    def fetch(path: str, storage_type: str, revision: str | None = None) -> Path:
        found: Path = keep_on(lambda: storage.fetch(path, storage_type, settings=settings, revision=revision, progress=progress))
        return found

    table = keep_on(lambda: references.fetch(request.dataset, part="dataset", settings=settings, progress=progress))
    if request.model.architecture:
        return {"table": table}
    assert request.model.path, "accepted with a path"
    tokenizer = request.tokenizer
    return {
        "checkpoint": fetch(request.model.path, request.model.storage_type, request.model.revision),
        "tokenizer": fetch(tokenizer.path, tokenizer.storage_type) if tokenizer and tokenizer.path else None,
        "table": table,
    }
