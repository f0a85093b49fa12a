"""What a run's checkpoints depend on, as one sha256. Reads the data set once."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from typing import TYPE_CHECKING

from .. import references
from ..contracts import TrainRequest

if TYPE_CHECKING:
    from .checkpoints import Checkpoint
    from .run import Sources

__all__ = ["fingerprint"]

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
        "data": references.digest(sources.table),
        "libraries": {name: importlib.metadata.version(name) for name in _libraries(request)},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _libraries(request: TrainRequest) -> tuple[str, ...]:
    """Those that the texts depend on only where they are asked to change them."""
    asked = request.dataset
    return (*LIBRARIES, *(("typo",) if asked.augment else ()), *(("ftfy",) if asked.clean and asked.clean.mojibake else ()))
