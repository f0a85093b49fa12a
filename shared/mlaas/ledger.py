"""The ledger: every event that changes the world, how often it was tried, and what came of it.

An attempt is counted durably before anything is done, so that one which kills its process is counted as well. An event
that was tried too often is parked: it is answered, so that no broker tries it again, and waits for an operator.

    open -> done        open -> parked -> replayed -> open        a success that comes late still makes it done
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cloudevents.http import CloudEvent

from . import events, metrics
from .contracts import TaskError
from .documents import Documents, Stored
from .errors import InvalidRequest, MlaasError, StoreAway, Unavailable
from .ledger_entry import SILENT, Entry, entry_of, now, opened, parked_reply, reply_in, text_of

__all__ = ["Ledger"]

WAITING = ("parked", "replayed")  # for an operator, or for the delivery of what the operator replayed
_COLLECTION = "ledger"
_LOOK_SECONDS = 0.05

log = logging.getLogger("mlaas")


@dataclass(frozen=True)
class Ledger:
    """The ledger in a document store. `limit` is how many attempts an event has, `patience` the seconds for those at work to end."""

    documents: Documents
    limit: int = 5
    patience: float = 2.0

    def act(self, capability: str, event: CloudEvent, act: Callable[[], CloudEvent | None], *, error_id: str) -> CloudEvent | None:
        """The reply of `act`, which acts on `event` for `capability`; the recorded one if it is done or parked.

        Whatever `act` raises is recorded, as its text if it may be shown, else as the `error_id`, and raised again.
        """
        key = events.derived_id(event["source"], event["id"], capability, "ledger")
        if (settled := self._attempt(key, capability, event)) is not None:
            return reply_in(settled.body)
        try:
            reply = act()
        except StoreAway:  # nor can the reason be recorded, and who asked has waited long enough
            raise
        except MlaasError as error:
            self._failed(key, TaskError(detail=error.detail, field=error.field, remedy=error.remedy))
            raise
        except Exception:
            self._failed(key, TaskError(detail="the platform failed; the error id finds the cause in its log", error_id=error_id))
            raise
        return reply_in(self._done(key, reply).body)

    def get(self, event_id: str) -> list[Entry]:
        """The entries of an event, one for each capability that acted on it."""
        return [entry_of(stored) for stored in self.documents.find(_COLLECTION, {"event_id": event_id})]

    def parked(self, *, limit: int = 1000) -> list[Entry]:
        """Events that wait for an operator, and those that were replayed and have not been delivered since; newest first."""
        found = [stored for status in WAITING for stored in self.documents.find(_COLLECTION, {"status": status}, limit=limit)]
        return [entry_of(stored) for stored in sorted(found, key=lambda one: one.created, reverse=True)][:limit]

    def parked_count(self) -> int:
        """How many events wait for an operator."""
        return self.documents.count(_COLLECTION, {"status": "parked"})

    def replay(self, key: str) -> None:
        """Give an event that is not done all its attempts again; what publishes it comes after this."""

        def reset(body: dict[str, Any]) -> None:
            if body["status"] != "done":
                body.update(status="replayed", attempts=0, replays=body["replays"] + 1, reply=None)

        self._change(key, reset)

    def _attempt(self, key: str, capability: str, event: CloudEvent) -> Stored | None:
        """Count an attempt; or the entry of an event on which nothing is to be done."""
        deadline = time.monotonic() + self.patience
        while True:
            stored = self.documents.get(_COLLECTION, key)
            if stored is None:
                if self.documents.insert(_COLLECTION, key, opened(capability, event)):
                    metrics.EVENT_ATTEMPTS.observe(1, capability)
                    return None
                continue
            body = stored.body
            if body["status"] in ("done", "parked"):
                return stored
            if body["attempts"] < self.limit:
                change = {"status": "open", "attempts": body["attempts"] + 1, "reason": dict(SILENT), "last": now()}
            elif body["reason"] == SILENT and time.monotonic() < deadline:
                time.sleep(_LOOK_SECONDS)  # delivered several times at once: perhaps another attempt is just about to succeed
                continue
            else:
                change = {"status": "parked", "reply": text_of(parked_reply(body, event))}
            if not self.documents.replace(_COLLECTION, stored, {**body, **change}):
                continue
            if change["status"] == "open":
                metrics.EVENT_ATTEMPTS.observe(body["attempts"] + 1, capability)
                return None
            fields = {"id": event["id"], "type": event["type"], "attempts": body["attempts"], "reason": body["reason"]["detail"]}
            log.warning("event.parked", extra={"fields": {**fields, "capability": capability}})

    def _failed(self, key: str, reason: TaskError) -> None:
        """Record why an attempt failed. If even that fails, the attempt stays counted, and the cause is raised all the same."""

        def note(body: dict[str, Any]) -> None:
            if body["status"] == "open":
                body.update(reason=reason.model_dump(exclude_none=True), last=now())

        try:
            self._change(key, note)
        except MlaasError as error:
            log.warning("ledger.reason_not_recorded", extra={"fields": {"reason": error.detail}})

    def _done(self, key: str, reply: CloudEvent | None) -> Stored:
        """Record the outcome; of several at once, the first."""

        def end(body: dict[str, Any]) -> None:
            if body["status"] != "done":
                body.update(status="done", reply=text_of(reply), reason={}, last=now())

        return self._change(key, end)

    def _change(self, key: str, change: Callable[[dict[str, Any]], None]) -> Stored:
        for _ in range(50):  # a compare-and-set is lost only to another delivery of the same event
            stored = self.documents.get(_COLLECTION, key)
            if stored is None:
                raise InvalidRequest("the ledger has no such event", field="ID", remedy="`mlaas events parked` lists them.")
            body = dict(stored.body)
            change(body)
            if body == stored.body or self.documents.replace(_COLLECTION, stored, body):
                return Stored(stored.key, stored.revision, stored.created, body)
        raise Unavailable("the event is being changed by others")
