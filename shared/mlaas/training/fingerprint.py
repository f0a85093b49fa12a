"""What a run's checkpoints depend on, as one sha256. Reads the data set once."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..contracts import TrainRequest
from ..storage import manifests

if TYPE_CHECKING:
    from .checkpoints import Checkpoint
    from .run import Sources

__all__ = ["content_digest", "fingerprint"]

# How often checkpoints are written and when the run must end say nothing about what it computes.
INDIFFERENT = {"checkpoint_minutes", "deadline_minutes"}
LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")


def fingerprint(request: TrainRequest, checkpoint: Checkpoint, sources: Sources) -> str:
    """The sha256, in hex, over settings, model, tokenizer, data and libraries: two runs that share it compute the same."""
    parts = {
        "objective": str(request.model.objective),
        "model_train": request.model_train.model_dump(mode="json", exclude=INDIFFERENT),
        "dataset": request.dataset.model_dump(mode="json", exclude={"path", "storage_type"}),
        "model": checkpoint.digest,
        "tokenizer": hashlib.sha256(checkpoint.tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        "data": content_digest(sources.table),
        "libraries": {name: importlib.metadata.version(name) for name in _libraries(request)},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _libraries(request: TrainRequest) -> tuple[str, ...]:
    """Those that the texts depend on only where they are asked to change them."""
    asked = request.dataset
    return (*LIBRARIES, *(("typo",) if asked.augment else ()), *(("ftfy",) if asked.clean and asked.clean.mojibake else ()))


def content_digest(place: Path) -> str:
    """The sha256, in hex, of a file, or over the names and sha256s of a folder's files."""
    if place.is_file():
        return manifests.sha256_of(place)
    return manifests.digest_of({name: manifests.sha256_of(place / name) for name in manifests.files_of(place)})
