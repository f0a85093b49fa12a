"""Who looks on while a run trains, and may end it: the search that it is a trial of. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ..errors import MlaasError

__all__ = ["Dismissed", "Watch"]


class Dismissed(MlaasError):
    """Whoever watches the run needs no more of it."""


class Watch(Protocol):
    """Looks at a run's figures. `provenance` is what the published model says of the search that it came from."""

    provenance: Mapping[str, Any]

    def evaluated(self, epoch: int, figures: Mapping[str, Any]) -> None:
        """The evaluation after `epoch`, from 1. Raises Dismissed to end the run."""

    def fitted(self, figures: Mapping[str, Any]) -> None:
        """The evaluation of the weights that the run ends with, before they are exported. Raises Dismissed if they need not be."""
