"""How much each entry is used: requests served, downloads, and how hot it is.

Heat is a sum of weights that loses half of itself every week. Two entries cool alike, so which of them is hotter changes
only when one is used: `rank` orders them without the time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..documents import Documents
from .kinds import Kind

__all__ = ["HALF_LIFE", "WEIGHTS", "Usage", "Use", "of", "of_all", "record"]

COLLECTION = "usage"
HALF_LIFE = 7 * 24 * 3600.0  # seconds
Use = Literal["served", "downloads", "published"]
WEIGHTS: Mapping[Use, float] = {"served": 1.0, "downloads": 10.0, "published": 20.0}


@dataclass(frozen=True, kw_only=True)
class Usage:
    """`heat` is as it was at `heated`, a time in seconds."""

    served: int = 0
    downloads: int = 0
    published: int = 0
    heat: float = 0.0
    heated: float = 0.0

    @property
    def rank(self) -> float:
        """Greater for what is hotter, at any time."""
        return math.log2(self.heat) + self.heated / HALF_LIFE if self.heat else -math.inf

    def hotness(self, moment: float) -> float:
        """The heat that is left at `moment`."""
        return self.heat * math.exp2(-max(moment - self.heated, 0.0) / HALF_LIFE)


def of(documents: Documents, kind: Kind, name: str) -> Usage:
    """The usage of one entry."""
    stored = documents.get(COLLECTION, f"{kind}/{name}")
    return _usage(stored.body) if stored else Usage()


def of_all(documents: Documents, kind: Kind) -> dict[str, Usage]:
    """The usage of every entry that was ever used, by its name."""
    return {stored.body["name"]: _usage(stored.body) for stored in documents.find(COLLECTION, {"kind": kind}, limit=100_000)}


def record(documents: Documents, kind: Kind, name: str, use: Use, count: int = 1) -> None:
    """Count a use. One that others' counting keeps from being written is lost: the figures are for an order, not for a bill."""
    key, moment = f"{kind}/{name}", time.time()
    for _ in range(20):
        stored = documents.get(COLLECTION, key)
        before = _usage(stored.body) if stored else Usage()
        now = {
            use: getattr(before, use) + count,
            "heat": before.hotness(moment) + WEIGHTS[use] * count,
            "heated": max(moment, before.heated),
        }
        body = {**asdict(before), **now, "kind": kind, "name": name}
        if documents.replace(COLLECTION, stored, body) if stored else documents.insert(COLLECTION, key, body):
            return


def _usage(body: Mapping[str, Any]) -> Usage:
    return Usage(**{name: value for name, value in body.items() if name not in ("kind", "name")})
