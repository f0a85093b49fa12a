"""What a run begins with: a checkpoint, or a configuration and a tokenizer trained for it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..contracts import TrainRequest
from ..errors import InvalidRequest
from .checkpoints import Checkpoint, open_checkpoint, open_config, open_scratch
from .progress import Meter
from .rows import read_rows
from .splits import split
from .spool import Records, Selected, packed, unpacked
from .vocabulary import train_tokenizer

__all__ = ["Sources", "max_length", "starting_point"]


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What a run reads, fetched: a checkpoint's folder, a tokenizer's folder unless it is the checkpoint's, a table."""

    checkpoint: Path
    tokenizer: Path | None
    table: Path


def starting_point(request: TrainRequest, sources: Sources, meter: Meter, work: Path | None = None) -> Checkpoint:
    """The checkpoint, or the configuration of a model from scratch with the tokenizer that is made for it."""
    if not request.model_train.from_scratch:
        return open_checkpoint(sources.checkpoint, sources.tokenizer)
    if request.tokenizer is None or request.tokenizer.train is None:
        return open_scratch(sources.checkpoint, sources.tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        model_type = open_config(sources.checkpoint).model_type
        train_tokenizer(_texts(request, sources, work), model_type, request.tokenizer.train.vocab_size, Path(folder), meter.tick)
        return open_scratch(sources.checkpoint, Path(folder), own_vocabulary=True)


def _texts(request: TrainRequest, sources: Sources, work: Path | None) -> Sequence[str]:
    """The texts of the training side: what is held out is new to the tokenizer as well."""
    rows = read_rows(sources.table, request.dataset, labelled=False, work=work).rows
    texts = Records(work, packed, lambda content: unpacked(content)[0])
    texts.extend(row.text for row in Selected(rows, split(rows, request.dataset.train_test_split, request.model_train.seed)[0]))
    return texts


def max_length(request: TrainRequest, checkpoint: Checkpoint) -> int:
    """Tokens per text. Raises InvalidRequest for more than the model takes."""
    wanted = request.model_train.max_length
    if wanted is None:
        return checkpoint.max_length
    if wanted > checkpoint.max_length:
        raise InvalidRequest(
            f"the model takes at most {checkpoint.max_length} tokens",
            field="model_train.max_length",
            remedy=f"Set `max_length` to {checkpoint.max_length} or less, or leave it out.",
        )
    return wanted
