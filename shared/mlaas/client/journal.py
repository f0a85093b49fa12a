"""The events that tasks made known, as a client sees them: those that are kept, and those that come."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..catalog.contracts import EventPage, EventShown, EventsQuery
from ..contracts import parse
from .connection import PAGE, Connection, pages
from .steps import Awaited, Blocking, Pause, Performer, Step, Steps

__all__ = ["AsyncEvents", "Events"]

EACH_SECONDS = 1.0
MOST = 5000  # events of one second


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


@dataclass
class _Seen:
    """Which events have been given out: those of the page that was read last."""

    ids: frozenset[str] | None = None

    def missed(self, page: Sequence[EventShown]) -> bool:
        """Whether there may be new ones behind this page."""
        return bool(self.ids) and len(page) >= PAGE and not any(one.id in (self.ids or ()) for one in page)

    def new(self, page: Sequence[EventShown]) -> list[EventShown]:
        """What of a page, newest first, has not been there the last time, oldest first; nothing of the first page, which is the past."""
        found = [one for one in reversed(page) if self.ids is not None and one.id not in self.ids]
        self.ids = frozenset(one.id for one in page)
        return found


class Events(_Journal):
    """The events that tasks made known."""

    list = Blocking(_found)

    def watch(self, *, task: str | None = None, type: str | None = None, seconds: float | None = None) -> Iterator[EventShown]:
        """Events as they come, looked for each second; for ever, or until `seconds` have passed."""
        deadline, seen = time.monotonic() + (math.inf if seconds is None else seconds), _Seen()
        while True:
            page = self.list(task=task, type=type, limit=PAGE)
            yield from seen.new(self.list(task=task, type=type, limit=MOST) if seen.missed(page) else page)
            if (left := deadline - time.monotonic()) <= 0:
                return
            self.perform(Pause(min(EACH_SECONDS, left)))


class AsyncEvents(_Journal):
    """The same, to be awaited."""

    list = Awaited(_found)

    async def watch(self, *, task: str | None = None, type: str | None = None, seconds: float | None = None) -> AsyncIterator[EventShown]:
        """As the watch of a Client, for `async for`."""
        deadline, seen = time.monotonic() + (math.inf if seconds is None else seconds), _Seen()
        while True:
            page = await self.list(task=task, type=type, limit=PAGE)
            for one in seen.new(await self.list(task=task, type=type, limit=MOST) if seen.missed(page) else page):
                yield one
            if (left := deadline - time.monotonic()) <= 0:
                return
            await self.perform(Pause(min(EACH_SECONDS, left)))
