"""The journal: the events that tasks made known, kept and queried by task, type and time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudevents.http import CloudEvent

from . import events
from .documents import Between, Documents, Stored
from .errors import InvalidRequest

__all__ = ["Journal", "Kept"]

_COLLECTION = "events"


@dataclass(frozen=True)
class Kept:
    """An event that is kept. `time` is ISO 8601 in UTC with milliseconds; `cursor` is where the next page of a `find` starts."""

    id: str
    task_id: str
    type: str
    time: str
    event: CloudEvent
    cursor: str


@dataclass(frozen=True)
class Journal:
    """The journal in a document store."""

    documents: Documents

    def keep(self, task_id: str, event: CloudEvent) -> None:
        """Keep an event of a task, once: the first of an id stays as it is."""
        known = events.parse_type(event["type"])
        body = {
            "task_id": task_id,
            "type": event["type"],
            "capability": known[0] if known else None,
            "time": event["time"],
            "chain": event.get("correlationid"),
            "owner": event.data.get("owner") if isinstance(event.data, Mapping) else None,
            "event": events.to_json(event),
        }
        self.documents.insert(_COLLECTION, event["id"], body)

    def get(self, event_id: str) -> Kept | None:
        """The event with this id."""
        stored = self.documents.get(_COLLECTION, event_id)
        return _kept(stored) if stored else None

    def find(
        self,
        *,
        task_id: str | None = None,
        chain: str | None = None,
        type: str | None = None,
        time: Between | None = None,
        owners: tuple[str, ...] | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[Kept]:
        """Up to `limit` events, those kept last first. Raises InvalidRequest for a type that the platform does not have.

        `chain` is the correlation id of a chain, which is the id of its first event. `type` may be short: `train.succeeded`, or `train` for
        all that a capability made known. With `owners`, events of tasks that belong to one of them.
        """
        match: dict[str, Any] = {"task_id": task_id} if task_id else {}
        match |= {"chain": chain} if chain else {}
        match |= _types(type) if type else {}
        match |= {"time": time} if time else {}
        match |= {"owner": owners} if owners is not None else {}
        return [_kept(stored) for stored in self.documents.find(_COLLECTION, match, limit=limit, before=before)]


def _types(text: str) -> Mapping[str, str]:
    capability, _, state = text.replace("-", "_").partition(".")
    if capability in events.CAPABILITIES and not state:
        return {"capability": capability}
    for whole in (text, events.event_type(capability, state)):
        if events.parse_type(whole):
            return {"type": whole}
    raise InvalidRequest(
        "there are no events of such a type",
        field="type",
        remedy=f"Give CAPABILITY or CAPABILITY.STATE, e.g. train.succeeded: {', '.join(events.CAPABILITIES)}; {', '.join(events.STATES)}.",
    )


def _kept(stored: Stored) -> Kept:
    body = stored.body
    return Kept(stored.key, body["task_id"], body["type"], body["time"], events.from_json(body["event"]), stored.cursor)
