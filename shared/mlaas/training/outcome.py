"""What comes of a run. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..bundles import Bundle

__all__ = ["Outcome"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a run; all but `bundle` is JSON serialisable. `variants` holds the figures of each graph in the bundle."""

    bundle: Bundle
    history: dict[str, Any]
    evaluation: dict[str, Any]
    dataset: dict[str, Any]
    provenance: dict[str, Any]
    variants: tuple[dict[str, Any], ...] = ()
    stopped: str | None = None
    search: dict[str, Any] | None = None  # how it was found, where it was searched for
