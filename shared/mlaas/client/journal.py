"""The events that tasks made known, as a client sees them: those that are kept, and those that come."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..catalog.contracts import EventPage, EventShown, EventsQuery
from ..contracts import parse
from .connection import Connection, pages
from .steps import Awaited, Blocking, Performer, Step, Steps

__all__ = ["AsyncEvents", "Events"]


def _found(
    of: _Journal,
    *,
    task: str | None = None,
    type: str | None = None,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
    limit: int | None = 100,
) -> Steps[list[EventShown]]:
    """Events of a task, of a type (`train.succeeded`, `train`), of a time (ISO 8601 with its offset), the last first."""
    given = {"task": task, "type": type, "since": since, "until": until}
    asked = parse(EventsQuery, {name: value for name, value in given.items() if value is not None})
    query = asked.model_dump(mode="json", exclude_unset=True)
    return (yield from pages(of.link, EventPage, ("events",), query, limit))


@dataclass(frozen=True)
class _Journal:
    client: Performer
    link: Connection

    def perform(self, step: Step) -> Any:
        """Steps are the client's."""
        return self.client.perform(step)


class Events(_Journal):
    """The events that tasks made known."""

    list = Blocking(_found)


class AsyncEvents(_Journal):
    """The same, to be awaited."""

    list = Awaited(_found)
