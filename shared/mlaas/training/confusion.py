"""Counting which class is taken for which while batches come."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .batches import Batch
from .objectives import Scored, Tally
from .scores import confusion

__all__ = ["ConfusionTally"]


@dataclass(kw_only=True)
class ConfusionTally(Tally):
    """A tally that also counts which class was taken for which: `matrix` [actual][predicted]."""

    labels: tuple[str, ...]
    matrix: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.matrix = np.zeros((len(self.labels), len(self.labels)), dtype=np.int64)

    def add(self, batch: Batch, scored: Scored) -> None:
        """Count one batch."""
        super().add(batch, scored)
        self.matrix += confusion(scored.targets.cpu(), scored.logits.argmax(-1).cpu(), len(self.labels))
