"""What a task is and which changes are allowed.

A task is a training run, an index build or the predictions for a data set. Its document is also the ledger entry of the
event that asked for it (its id is derived from the event's source and id, so a redelivered event finds the first outcome)
and the outbox of the events that it owes: a final state and its completion event are one write.

    accepted -> running -> succeeded | failed | cancelled        running -> accepted when a run is interrupted
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from . import events
from .contracts import Task, TaskError
from .documents import Documents, Stored
from .errors import InvalidRequest, MlaasError, NotFound, Unavailable
from .heartbeats import Watch
from .settings import current

if TYPE_CHECKING:
    from cloudevents.http import CloudEvent

__all__ = ["FINAL", "MAX_ATTEMPTS", "Cancelled", "Ownership", "Run", "Superseded", "Tasks", "public"]

FINAL = ("succeeded", "failed", "cancelled")
MAX_ATTEMPTS = 3
_COLLECTION = "tasks"
_CLAIMS = "claims"  # whose the tasks will be that requests with these ids make

log = logging.getLogger("mlaas")
_ENVELOPE_BYTES = 8192  # what an event needs beside its data


class Cancelled(MlaasError):
    """Somebody asked for this run to be cancelled."""


class Superseded(MlaasError):
    """Another run has taken this task over, or it has ended; this one must stop without a trace."""


@dataclass(frozen=True)
class Run:
    """One attempt at a task: what a job holds while it works, and the fence against a second one."""

    task_id: str
    attempt: int
    accepted: CloudEvent
    request: dict[str, Any]


@dataclass(frozen=True)
class Ownership:
    """Whose a task is: `owner` is a subject or `group:NAME`, None for the administrators alone; `asked_by` the subject of who asked."""

    owner: str | None = None
    asked_by: str | None = None

    def document(self) -> dict[str, str]:
        """What a task says of it."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


def public(body: Mapping[str, Any]) -> dict[str, Any]:
    """The task as its owner sees it, without the ledger's and the outbox's fields."""
    return Task.model_validate({name: body[name] for name in Task.model_fields if name in body}).model_dump(exclude_none=True)


@dataclass(frozen=True)
class Tasks:
    """The tasks in a document store. `clock` gives the time that stands in them, which orders nothing and ends nothing."""

    documents: Documents
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def claim(self, capability: str, key: str, ownership: Ownership) -> str:
        """Say whose the task is that a request over HTTP with the Idempotency-Key `key` will make, before it is sent; the task's id.

        A request itself never says it, so that nobody sends one in another's name: only who reaches the document store can.
        The first claim stands.
        """
        task_id = events.derived_id(events.HTTP_SOURCE, key, capability, "task", "")
        self.documents.insert(_CLAIMS, task_id, ownership.document())
        return task_id

    def accept(
        self,
        capability: str,
        request: Mapping[str, Any],
        cause: CloudEvent,
        *,
        part: str = "",
        publish: bool,
        ownership: Ownership | None = None,
    ) -> CloudEvent:
        """Record the task that `cause` asks for, once, and return its accepted event, the same each time.

        `part` tells apart several tasks of one cause. With `publish` the event goes out through the outbox; without,
        the caller replies with it. The task is whose `ownership` says, else who claimed it, else nobody's.
        """
        task_id = events.derived_id(cause["source"], cause["id"], capability, "task", part)
        task = {
            "task_id": task_id,
            "task_status": "accepted",
            "capability": capability,
            **(ownership.document() if ownership else self._claimed(task_id)),
            "request": dict(request),
            "stats": {"submitted": self._now()},
        }
        accepted = events.reply(cause, capability, "accepted", public(task), subject=task_id)
        accepted["id"] = events.derived_id(cause["source"], cause["id"], capability, "accepted", part)
        accepted["partitionkey"] = task_id
        envelope = events.to_json(accepted)
        body = {**task, "accepted": envelope, "outbox": [envelope] if publish else [], "outbox_pending": publish, "cancel_requested": False}
        if self.documents.insert(_COLLECTION, task_id, body):
            log.info("task.accepted", extra={"fields": {"task_id": task_id, "capability": capability}})
        return events.from_json(self._get(task_id).body["accepted"])

    def ownership(self, task_id: str) -> Ownership:
        """Whose a task is; nobody's where there is none."""
        stored = self.documents.get(_COLLECTION, task_id)
        body = stored.body if stored else {}
        return Ownership(body.get("owner"), body.get("asked_by"))

    def known(self, capability: str, cause: CloudEvent) -> CloudEvent | None:
        """The accepted event of the task that `cause` has made already: a redelivery is not judged again."""
        stored = self.documents.get(_COLLECTION, events.derived_id(cause["source"], cause["id"], capability, "task", ""))
        return events.from_json(stored.body["accepted"]) if stored else None

    def get(self, task_id: str, owners: tuple[str, ...] | None = None) -> dict[str, Any]:
        """The task. Raises NotFound, with `owners` also for one that belongs to none of them."""
        return public(self._get(task_id, owners).body)

    def is_to_end(self, task_id: str) -> bool:
        """Whether somebody asked for the task to be cancelled. Raises NotFound."""
        return bool(self._get(task_id).body["cancel_requested"])

    def log(self, task_id: str) -> list[dict[str, Any]]:
        """The last lines that the task's job logged, oldest first, as `logs.Tail` has them. Raises NotFound."""
        return list(self._get(task_id).body.get("log") or [])

    def find(
        self, *, status: str | None = None, owners: tuple[str, ...] | None = None, limit: int = 100, before: str | None = None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Tasks, newest first, and the cursor of the next page; with `owners`, those that belong to one of them."""
        match = {"task_status": status, "owner": owners}
        found = self.documents.find(
            _COLLECTION, {name: value for name, value in match.items() if value is not None}, limit=limit, before=before
        )
        return [public(stored.body) for stored in found], found[-1].cursor if len(found) == limit else None

    def begin(self, task_id: str) -> Run | None:
        """Start, or start again, to work on a task; None if it has ended. After MAX_ATTEMPTS it is marked failed."""
        stored = self._get(task_id)
        if stored.body["task_status"] in FINAL:
            return None
        attempt = stored.body["stats"].get("attempts", 0) + 1
        run = Run(task_id, attempt, events.from_json(stored.body["accepted"]), stored.body["request"])
        if attempt > MAX_ATTEMPTS:
            self._finish(
                task_id,
                "failed",
                {
                    "error": {
                        "detail": f"the run was killed or interrupted {MAX_ATTEMPTS} times",
                        "remedy": "See the job's log, then submit the request again.",
                    }
                },
            )
            return None

        def start(body: dict[str, Any]) -> None:
            if body["task_status"] in FINAL or body["stats"].get("attempts", 0) >= attempt:
                raise Superseded("another run has this task")
            body["task_status"] = "running"
            body["stats"] |= {"attempts": attempt, "started": body["stats"].get("started") or self._now(), "heartbeat": self._now()}

        self._change(task_id, start)
        return run

    def report(self, run: Run, **fields: Any) -> None:
        """Record progress and the heartbeat. Raises Cancelled when that was asked for, Superseded when the run lost its task."""

        def update(body: dict[str, Any]) -> None:
            self._fence(run, body)
            if body["cancel_requested"]:
                raise Cancelled("the run was cancelled")
            body["stats"]["heartbeat"] = self._now()
            body.update(fields)

        self._change(run.task_id, update)

    def release(self, run: Run) -> None:
        """Give the task back, to be run again: the process is being stopped. The attempt is not counted."""

        def back(body: dict[str, Any]) -> None:
            self._fence(run, body)
            body["task_status"] = "accepted"
            body["stats"]["attempts"] -= 1

        self._change(run.task_id, back)

    def finish(self, run: Run, status: str, **fields: Any) -> None:
        """Record the final state and the completion event, in one write. Raises Superseded when the run lost its task."""
        self._finish(run.task_id, status, fields, run)

    def cancel(self, task_id: str, owners: tuple[str, ...] | None = None) -> dict[str, Any]:
        """Ask for a task to be cancelled: at once if it is waiting, at its next report if it runs.

        Raises InvalidRequest if it ended, and NotFound as `get`.
        """
        stored = self._get(task_id, owners)
        if stored.body["task_status"] in FINAL:
            raise InvalidRequest(
                f"the task has ended: {stored.body['task_status']}",
                field="task_id",
                remedy="Only a waiting or running task can be cancelled.",
            )
        if stored.body["task_status"] == "accepted":
            self._finish(task_id, "cancelled", {})
        else:
            self._change(task_id, lambda body: body.update(cancel_requested=True))
        return self.get(task_id)

    def expire(self, watch: Watch) -> list[str]:
        """Mark failed every running task that `watch` finds stale; their ids."""
        running = {stored.key: stored for stored in self.documents.find(_COLLECTION, {"task_status": "running"}, limit=1000)}
        expired = []
        for key in watch.look({key: stored.revision for key, stored in running.items()}):
            stored = running[key]
            reason = TaskError(
                detail="the run stopped without a word: its process was killed or its machine lost",
                remedy="Submit the request again; if it happens again, give the run more memory.",
            )
            body = _finished(stored.body, "failed", {"error": reason.model_dump(exclude_none=True)}, self._now())
            if self.documents.replace(_COLLECTION, stored, body):
                expired.append(stored.key)
        return expired

    def owed(self) -> Iterator[tuple[str, CloudEvent]]:
        """Task id and event of each event in the outbox, oldest task first."""
        for stored in reversed(self.documents.find(_COLLECTION, {"outbox_pending": True}, limit=1000)):
            for envelope in stored.body["outbox"]:
                yield stored.key, events.from_json(envelope)

    def counts(self, owners: tuple[str, ...] | None = None) -> dict[str, int]:
        """How many tasks there are, by status; with `owners`, of those that belong to one of them."""
        whose: dict[str, Any] = {} if owners is None else {"owner": owners}
        return {status: self.documents.count(_COLLECTION, {"task_status": status, **whose}) for status in ("accepted", "running", *FINAL)}

    def owed_count(self) -> int:
        """How many tasks owe events."""
        return self.documents.count(_COLLECTION, {"outbox_pending": True})

    def published(self, task_id: str, event_id: str) -> None:
        """Take an event out of the outbox: the Broker has it."""

        def remove(body: dict[str, Any]) -> None:
            body["outbox"] = [envelope for envelope in body["outbox"] if envelope["id"] != event_id]
            body["outbox_pending"] = bool(body["outbox"])

        self._change(task_id, remove)

    def _claimed(self, task_id: str) -> dict[str, Any]:
        claim = self.documents.get(_CLAIMS, task_id)
        return claim.body if claim else {}

    def _get(self, task_id: str, owners: tuple[str, ...] | None = None) -> Stored:
        stored = self.documents.get(_COLLECTION, task_id)
        if stored is None or (owners is not None and stored.body.get("owner") not in owners):
            raise NotFound("there is no such task", field="task_id", remedy="`mlaas tasks` lists them.")
        return stored

    def _finish(self, task_id: str, status: str, fields: Mapping[str, Any], run: Run | None = None) -> None:
        def end(body: dict[str, Any]) -> None:
            if run:
                self._fence(run, body)
            if body["task_status"] in FINAL:
                raise Superseded("the task has ended")
            body.update(_finished(body, status, fields, self._now()))

        self._change(task_id, end)

    def _change(self, task_id: str, change: Callable[[dict[str, Any]], Any]) -> None:
        for _ in range(50):  # a compare-and-set is lost only to another writer, and a task has two or three of them
            stored = self._get(task_id)
            body = {**stored.body, "stats": dict(stored.body["stats"])}
            change(body)
            if self.documents.replace(_COLLECTION, stored, body):
                return
        raise Unavailable("the task is being changed by others")

    def _now(self) -> str:
        return self.clock().isoformat(timespec="milliseconds")

    @staticmethod
    def _fence(run: Run, body: Mapping[str, Any]) -> None:
        if body["task_status"] != "running" or body["stats"].get("attempts") != run.attempt:
            raise Superseded("another run has this task")


def _finished(body: Mapping[str, Any], status: str, fields: Mapping[str, Any], now: str) -> dict[str, Any]:
    stats = {**body["stats"], **fields.get("stats", {}), "finished": now, "elapsed": _seconds(body["stats"].get("started") or now, now)}
    task = {**body, **fields, "task_status": status, "stats": stats}
    if status == "succeeded":
        task["progress"] = {"phase": "done", "percent": 100.0}
    event = events.reply(events.from_json(body["accepted"]), body["capability"], status, _fitting(public(task)), subject=body["task_id"])
    return {**task, "outbox": [*body["outbox"], events.to_json(event)], "outbox_pending": True}


def _fitting(task: dict[str, Any]) -> dict[str, Any]:
    """The task without its largest parts, where an event with them would be too large."""
    limit, omitted = current().max_event_bytes - _ENVELOPE_BYTES, []
    for part in ("history", "evaluation"):
        if len(json.dumps(task)) <= limit:
            break
        if task.pop(part, None):
            omitted.append(part)
    return {**task, "omitted": omitted} if omitted else task


def _seconds(start: str, end: str) -> float:
    """Never negative, though the clock may have been set back between two processes, which share no other clock."""
    return max(0.0, round((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds(), 3))
