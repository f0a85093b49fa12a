"""Documents in memory, under the same contract test as the real stores: for tests of what is built on them."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

from ..documents import Between, Stored

__all__ = ["MemoryDocuments"]


class MemoryDocuments:
    """Gone with the process; safe for many threads. What was read never changes with the store."""

    def __init__(self) -> None:
        self._documents: dict[tuple[str, str], tuple[int, int, str]] = {}  # revision, created, body as JSON
        self._clock = 0
        self._lock = threading.Lock()

    def insert(self, collection: str, key: str, body: Mapping[str, Any], *, after: int = 0) -> bool:
        with self._lock:
            if (collection, key) in self._documents:
                return False
            self._clock += 1
            self._documents[collection, key] = (1, max(self._clock, after + 1), json.dumps(body))
            return True

    def get(self, collection: str, key: str) -> Stored | None:
        with self._lock:
            found = self._documents.get((collection, key))
        return Stored(key, found[0], found[1], json.loads(found[2])) if found else None

    def replace(self, collection: str, stored: Stored, body: Mapping[str, Any]) -> bool:
        with self._lock:
            revision, created, _ = self._documents.get((collection, stored.key), (0, 0, ""))
            if revision != stored.revision:
                return False
            self._documents[collection, stored.key] = (revision + 1, created, json.dumps(body))
            return True

    def find(self, collection: str, match: Mapping[str, Any], *, limit: int = 100, before: str | None = None) -> list[Stored]:
        with self._lock:
            mine = [(key, *state) for (where, key), state in self._documents.items() if where == collection]
        found = [Stored(key, revision, created, json.loads(body)) for key, revision, created, body in mine]
        found = [one for one in found if all(_matches(_value(one.body, field), wanted) for field, wanted in match.items())]
        if before:
            created, _, key = before.partition(":")
            found = [one for one in found if (one.created, one.key) < (int(created), key)]
        return sorted(found, key=lambda one: (one.created, one.key), reverse=True)[:limit]

    def count(self, collection: str, match: Mapping[str, Any]) -> int:
        return len(self.find(collection, match, limit=len(self._documents)))

    def close(self) -> None:
        """Nothing to give up."""


def _value(body: Any, field: str) -> Any:
    for name in field.split("."):
        body = body.get(name) if isinstance(body, dict) else None
    return body


def _matches(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, tuple):
        return value in wanted
    if not isinstance(wanted, Between):
        return bool(value == wanted)
    return isinstance(value, str) and (wanted.low or "") <= value and (wanted.high is None or value < wanted.high)
