"""The operations on tasks, and on the events that they made known.

Users see those of their own and of their groups, and nothing else is there for them: requests name data and places.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from ..catalog import contracts
from ..contracts import Task
from ..documents import Between, shared
from ..errors import InvalidRequest
from ..events import to_json
from ..journal import Journal
from ..tasks import Tasks
from .operations import Answer, Asked, Operation

__all__ = ["OPERATIONS", "cursor", "span"]

_TASK = "/v1/tasks/{task}"
_CURSOR = re.compile(r"[0-9]{1,19}:[ -~]{1,200}")


def list_tasks(asked: Asked) -> Answer:
    query: contracts.TasksQuery = asked.query
    found, following = _tasks(asked).find(
        status=query.status, owners=asked.principal.owners, limit=query.limit, before=cursor(query.cursor)
    )
    return contracts.TaskPage(items=[Task.model_validate(one) for one in found], next=following)


def get_task(asked: Asked) -> Answer:
    return Task.model_validate(_tasks(asked).get(asked.path["task"], asked.principal.owners))


def cancel_task(asked: Asked) -> Answer:
    return Task.model_validate(_tasks(asked).cancel(asked.path["task"], asked.principal.owners))


def list_events(asked: Asked) -> Answer:
    query: contracts.EventsQuery = asked.query
    when, before = span(query.since, query.until), cursor(query.cursor)
    journal, owners = Journal(shared(asked.settings)), asked.principal.owners
    found = journal.find(task_id=query.task, type=query.type, time=when, owners=owners, limit=query.limit, before=before)
    items = [contracts.EventShown(id=one.id, task_id=one.task_id, type=one.type, time=one.time, event=to_json(one.event)) for one in found]
    return contracts.EventPage(items=items, next=found[-1].cursor if len(found) == query.limit else None)


def _tasks(asked: Asked) -> Tasks:
    return Tasks(shared(asked.settings))


def cursor(text: str | None) -> str | None:
    """`text`, if it can be the cursor of a list of tasks or events. Raises InvalidRequest."""
    if text is not None and not _CURSOR.fullmatch(text):
        raise InvalidRequest("this is no cursor of this list", field="cursor", remedy="Take `next` of the page before.")
    return text


def span(since: datetime | None, until: datetime | None) -> Between | None:
    """From `since` on and before `until`, as what is kept has its times. Raises InvalidRequest."""
    return Between(_instant(since), _instant(until)) if since or until else None


def _instant(moment: datetime | None) -> str | None:
    """As the journal has it: UTC, with milliseconds."""
    if moment is None:
        return None
    try:
        return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except OverflowError:
        raise InvalidRequest("this is no time", field="since", remedy="Give one like 2026-01-31T12:00:00Z.") from None


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        id="listTasks",
        method="GET",
        path="/v1/tasks",
        handler=list_tasks,
        summary="Trainings, index builds and predictions for data sets, newest first.",
        query=contracts.TasksQuery,
        answer=contracts.TaskPage,
    ),
    Operation(id="getTask", method="GET", path=_TASK, handler=get_task, summary="A task: how far it is, and what came of it.", answer=Task),
    Operation(
        id="cancelTask",
        method="POST",
        path=f"{_TASK}/cancel",
        handler=cancel_task,
        summary="Cancel a task: at once if it waits, at its next report if it runs.",
        answer=Task,
        changes=True,
    ),
    Operation(
        id="listEvents",
        method="GET",
        path="/v1/events",
        handler=list_events,
        summary="The events that tasks made known.",
        query=contracts.EventsQuery,
        answer=contracts.EventPage,
    ),
)
