"""Who still lives, judged without comparing clocks.

A run changes its task every few seconds. Whoever watches counts, on its own monotonic clock, for how long it has seen the same
revision. So neither a wall clock that jumps nor machines whose clocks differ can make a living run look dead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["Watch"]


@dataclass(frozen=True)
class _Seen:
    revision: int
    unchanged: float = 0.0  # seconds
    alive: bool = False  # it changed since it was first seen


@dataclass
class Watch:
    """Watches the revisions of running tasks; what has not changed for `stale_after` seconds is stale. `clock` is in seconds."""

    stale_after: float
    clock: Callable[[], float] = time.monotonic
    _seen: dict[str, _Seen] = field(default_factory=dict)
    _looked: float | None = None

    def look(self, revisions: Mapping[str, int]) -> set[str]:
        """Note the revision of each running task, by its id; the ids of those that are stale."""
        now = self.clock()
        # A long gap between two looks proves nothing: while the store was away, or this process stopped, no run could be heard either.
        passed = min(now - self._looked, self.stale_after / 3) if self._looked is not None else 0.0
        self._looked = now
        self._seen = {key: self._compared(key, revision, passed) for key, revision in revisions.items()}
        return {key for key, seen in self._seen.items() if seen.unchanged > self.stale_after}

    @property
    def undecided(self) -> bool:
        """Whether a task has not changed since it was first seen, nor become stale."""
        return any(not seen.alive and seen.unchanged <= self.stale_after for seen in self._seen.values())

    def _compared(self, key: str, revision: int, passed: float) -> _Seen:
        before = self._seen.get(key)
        if before is None:
            return _Seen(revision)
        if before.revision != revision:
            return _Seen(revision, alive=True)
        return _Seen(revision, before.unchanged + passed, before.alive)
