"""The audit log: who asked for which change of what, when, and whether it was done. It holds names, no text and no secret.

A record is written before the change, so that there is none without, and gets its outcome afterwards, once; `begun` is what a
process left that died in between, or that lost the store.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from ..documents import Between, Documents, Stored
from ..errors import InvalidRequest, MlaasError

__all__ = ["Change", "OutcomeOfChange", "Record", "find", "recorded"]

OutcomeOfChange = Literal["begun", "succeeded", "refused", "failed"]
_COLLECTION = "audit"
_LONGEST = 200

log = logging.getLogger("mlaas")


@dataclass(frozen=True)
class Change:
    """A record. `target` is the version, alias, task or owner of a quota that was meant, `made` where the result is.

    `time` is ISO 8601 in UTC.
    """

    subject: str
    operation: str
    kind: str | None
    name: str | None
    target: str | None
    time: str
    outcome: OutcomeOfChange
    reason: str | None
    made: str | None


@dataclass
class Record:
    """What is told of a change while it is made: `refused` by an answer's status, `made` by its address."""

    refused: bool = False
    made: str | None = None


@contextmanager
def recorded(documents: Documents, subject: str, operation: str, path: Mapping[str, str]) -> Iterator[Record]:
    """Record the change that is made inside, and what becomes of it. Raises Unavailable, before anything is changed, if it cannot."""
    key, record = str(uuid.uuid4()), Record()
    target = next((path[name] for name in ("version", "alias", "task", "task_id", "owner") if name in path), None)
    named = {"kind": path.get("kind"), "name": path.get("name"), "target": target}
    body: dict[str, Any] = {name: value[:_LONGEST] if value else None for name, value in named.items()}
    body |= {"subject": subject, "operation": operation, "outcome": "begun", "reason": None, "made": None}
    body["time"] = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    documents.insert(_COLLECTION, key, body)
    outcome: dict[str, Any] = {"outcome": "failed", "reason": "defect"}
    try:
        yield record
        outcome = {"outcome": "refused" if record.refused else "succeeded", "reason": None, "made": (record.made or "")[:_LONGEST] or None}
    except MlaasError as error:
        outcome = {"outcome": "refused" if isinstance(error, InvalidRequest) else "failed", "reason": type(error).__name__}
        raise
    finally:
        _end(documents, key, outcome)


def find(
    documents: Documents,
    *,
    subject: str | None = None,
    operation: str | None = None,
    kind: str | None = None,
    name: str | None = None,
    time: Between | None = None,
    limit: int = 100,
    before: str | None = None,
) -> tuple[list[Change], str | None]:
    """Up to `limit` records, newest first, and the cursor of the page after, if there may be one."""
    asked = {"subject": subject, "operation": operation, "kind": kind, "name": name, "time": time}
    match = {field: value for field, value in asked.items() if value is not None}
    found = documents.find(_COLLECTION, match, limit=limit, before=before)
    return [_change(one) for one in found], found[-1].cursor if len(found) == limit else None


def _end(documents: Documents, key: str, outcome: Mapping[str, Any]) -> None:
    try:
        if stored := documents.get(_COLLECTION, key):
            documents.replace(_COLLECTION, stored, {**stored.body, **outcome})
    except MlaasError:  # the change is made or not whatever is written of it
        log.warning("audit.unfinished", extra={"fields": {"record": key, "outcome": outcome["outcome"]}})


def _change(stored: Stored) -> Change:
    return Change(**{name: stored.body[name] for name in Change.__dataclass_fields__})
