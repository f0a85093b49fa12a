"""What the ledger keeps of one event: its document, what an operator sees of it, and the reply to an event that is parked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cloudevents.http import CloudEvent

from . import events
from .documents import Stored

__all__ = ["SILENT", "Entry", "entry_of", "now", "opened", "parked_reply", "reply_in", "text_of"]

# The reason of an attempt from its beginning on: whatever happens to it then, if it cannot say why, this is why.
SILENT: Mapping[str, str] = {
    "detail": "the process ended, or lost the document store, while it handled the event",
    "remedy": "See its log; it was killed, ran out of memory or was lost with its machine.",
}


@dataclass(frozen=True)
class Entry:
    """What the ledger knows of one event for one capability. `first` and `last` are the times of the first and last attempt."""

    key: str
    event_id: str
    source: str
    type: str
    capability: str
    status: str
    attempts: int
    reason: dict[str, Any]
    first: str
    last: str
    event: CloudEvent | None  # None where its data could not be kept
    reply: CloudEvent | None


def opened(capability: str, event: CloudEvent) -> dict[str, Any]:
    """The document of an event whose first attempt begins."""
    try:
        kept: str | None = text_of(event)
    except (ValueError, TypeError, RecursionError):  # no JSON can say it; the function refuses it anyway
        kept = None
    return {
        "event_id": event["id"],
        "source": event["source"],
        "type": event["type"],
        "capability": capability,
        "status": "open",
        "attempts": 1,
        "replays": 0,
        "reason": dict(SILENT),
        "first": now(),
        "last": now(),
        "event": kept,  # as text: data with any names and numbers go into any store
        "reply": None,
    }


def parked_reply(body: dict[str, Any], event: CloudEvent) -> CloudEvent | None:
    """What the sender of a request gets; nobody waits for the answer to another event."""
    capability = body["capability"]
    if event["type"] != events.event_type(capability, "requested"):
        return None
    problem = {
        **body["reason"],
        "type": "urn:mlaas:problem:parked",
        "title": "Parked",
        "status": 503,
        "detail": f"the event failed {body['attempts']} times and is parked: {body['reason']['detail']}",
        "remedy": f"An operator replays it with `mlaas events replay {event['id']}`.",
    }
    reply = events.reply(event, capability, "failed", problem)
    # Its own id each time: after a replay there may be another failure, and who reads by id must see both.
    reply["id"] = events.derived_id(event["source"], event["id"], capability, "parked", str(body["replays"]))
    return reply


def entry_of(stored: Stored) -> Entry:
    """The entry that a document holds."""
    body = stored.body
    event = events.from_json(json.loads(body["event"])) if body["event"] else None
    return Entry(
        stored.key,
        body["event_id"],
        body["source"],
        body["type"],
        body["capability"],
        body["status"],
        body["attempts"],
        body["reason"],
        body["first"],
        body["last"],
        event,
        reply_in(body),
    )


def reply_in(body: dict[str, Any]) -> CloudEvent | None:
    """The recorded reply, the same to the byte each time."""
    return events.from_json(json.loads(body["reply"])) if body["reply"] else None


def text_of(event: CloudEvent | None) -> str | None:
    """An event as JSON text."""
    return json.dumps(events.to_json(event)) if event else None


def now() -> str:
    """The time in ISO 8601, UTC, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
