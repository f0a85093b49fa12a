"""What the relay measures of the platform's tasks: how many there are, from the document store, and how long those that end took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from . import metrics
from .documents import Between
from .journal import Journal, Kept
from .ledger import Ledger
from .tasks import FINAL, Tasks

__all__ = ["Endings", "read_gauges_from"]

OVERLAP = timedelta(seconds=60)  # events are made on several machines, and are kept a moment after they are made
LIMIT = 1000


def read_gauges_from(tasks: Tasks) -> None:
    """Let the gauges of tasks, of the outbox and of parked events be read from the store of `tasks` at each scrape."""
    metrics.TASKS.read_with(lambda: {(status,): count for status, count in tasks.counts().items()})
    metrics.OUTBOX_TASKS.read_with(lambda: {(): tasks.owed_count()})
    metrics.PARKED_EVENTS.read_with(lambda: {(): Ledger(tasks.documents).parked_count()})


@dataclass
class Endings:
    """Finds in the journal which tasks have ended since the last look, and measures each once."""

    journal: Journal
    _from: datetime = field(default_factory=lambda: datetime.now(UTC))
    _seen: set[str] = field(default_factory=set)

    def look(self) -> None:
        """Measure what ended. Raises Unavailable."""
        kept = self.journal.find(time=Between(low=_text(self._from)), limit=LIMIT)
        for one in kept:
            if one.id not in self._seen:
                _measure(one)
        self._seen = {one.id for one in kept}
        newest = max((datetime.fromisoformat(one.time) for one in kept), default=self._from)
        self._from = max(self._from, newest - OVERLAP)


def _measure(kept: Kept) -> None:
    task: Any = kept.event.data
    if isinstance(task, Mapping) and task.get("task_status") in FINAL:
        seconds = task.get("stats", {}).get("elapsed") or 0.0
        metrics.JOB_SECONDS.observe(seconds, task.get("capability", "unknown"), task["task_status"])


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")  # as events have it: they are compared as text
