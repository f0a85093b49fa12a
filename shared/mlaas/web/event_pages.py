"""Events: those that tasks made known, a chain of them as a timeline, and those that wait for an operator, with their replay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import flask
from cloudevents.http import CloudEvent

from .. import events
from ..catalog_api.task_operations import cursor
from ..errors import InvalidRequest, MlaasError, NotFound
from ..journal import Journal, Kept
from ..ledger import Ledger
from ..runtime import problem
from .page import Page, Visit

if TYPE_CHECKING:
    from ..replay import Desk, Waiting

__all__ = ["PAGES"]

LISTED = 40
CHAIN = 500  # events of a chain that are shown


@dataclass(frozen=True)
class Step:
    """An event of a chain. `after` is in seconds since the first, `depth` how many events led to it; `task_id` None for none."""

    capability: str
    state: str
    id: str
    time: str | None
    after: float | None
    depth: int
    task_id: str | None
    event: Mapping[str, Any] | None


def listed(visit: Visit) -> Any:
    """The events that tasks made known, newest first."""
    asked = {name: value.strip() for name in ("type", "task", "before") if (value := flask.request.args.get(name, "")).strip()}
    found: list[Kept] = []
    refused: MlaasError | None = None
    try:
        journal, before = Journal(visit.documents), cursor(asked.get("before"))
        owners = visit.principal.owners
        found = journal.find(task_id=asked.get("task"), type=asked.get("type"), owners=owners, limit=LISTED, before=before)
    except InvalidRequest as error:
        refused = error
    return visit.show(
        "events.html",
        found=[(one, *_named(one.type), str(one.event.get("correlationid") or one.id)) for one in found],
        following=found[-1].cursor if len(found) == LISTED else None,
        asked=asked,
        capabilities=events.CAPABILITIES,
        refused=refused,
        parked=Ledger(visit.documents).parked_count() if visit.principal.has("admin") else None,
    )


def chain(visit: Visit) -> Any:
    """All that followed from one request, in the order of time."""
    id = flask.request.args.get("id", "")
    found = Journal(visit.documents).find(chain=id, owners=visit.principal.owners, limit=CHAIN) if id else []
    if not found:
        raise NotFound("there is no such chain of events", field="id", remedy="Begin at the list of events.")
    steps = _steps(sorted((one.event for one in found), key=lambda event: (event["time"], event["id"])), id)
    return visit.show("chain.html", id=id, steps=steps, tasks=list(dict.fromkeys(one.task_id for one in steps if one.task_id)))


def _steps(found: list[CloudEvent], first: str) -> list[Step]:
    """The request, which nobody keeps, as its id alone; then what is kept."""
    capability = _named(str(found[0]["type"]))[0]
    steps = [Step(capability, "requested", first, None, None, 0, None, None)]
    depths, began = {first: 0}, datetime.fromisoformat(str(found[0]["time"]))
    for event in found:
        depth = depths[event["id"]] = depths.get(str(event.get("causationid")), 0) + 1
        moment = str(event["time"])
        after = (datetime.fromisoformat(moment) - began).total_seconds()
        capability, state = _named(str(event["type"]))
        steps.append(Step(capability, state, event["id"], moment, after, min(depth - 1, 6), event.get("subject"), events.to_json(event)))
    return steps


def _named(type: str) -> tuple[str, str]:
    """Capability and state of an event's type."""
    return events.parse_type(type) or (type, "")


def parked(visit: Visit) -> Any:
    """What waits for an operator: parked by a function, or given up by the broker, whom asking may take a while."""
    return _waiting(visit, None)


def letters(visit: Visit) -> Any:
    """The dead letters, for the page of what waits."""
    found, away = _letters(visit)
    return visit.show("part_letters.html", letters=found, away=away)


def replay(visit: Visit) -> Any:
    """Publish an event that waits again."""
    id = flask.request.form.get("id", "")
    try:
        _desk(visit).replay([id])
    except MlaasError as error:
        return _waiting(visit, error)
    return flask.redirect(f"/web/events/parked?{urlencode({'replayed': id})}", 303)


def _waiting(visit: Visit, refused: MlaasError | None) -> Any:
    asked = flask.request.args.get("letters") == "1"
    found, away = _letters(visit) if asked else ([], None)
    return visit.show(
        "parked.html",
        status=problem(refused)["status"] if refused else 200,
        found=_rows(_desk(visit).parked()),
        letters=found,
        away=away,
        asked=asked,
        refused=refused,
        replayed=flask.request.args.get("replayed"),
    )


def _letters(visit: Visit) -> tuple[list[Any], MlaasError | None]:
    """The dead letters that were not replayed, latest first, or why they cannot be read."""
    try:
        return _rows(sorted(_desk(visit).letters(), key=lambda one: one.time, reverse=True)), None
    except MlaasError as error:
        return [], error


def _rows(found: list[Waiting]) -> list[Any]:
    return [(one, *_named(one.type), events.to_json(one.event) if one.event else None) for one in found]


def _desk(visit: Visit) -> Desk:
    from ..replay import Desk  # and Kafka's client, not in a cold start

    return Desk(visit.documents, visit.settings)


PAGES = (
    Page("/events", listed),
    Page("/events/chain", chain),
    Page("/events/parked", parked),
    Page("/events/letters", letters),
    Page("/events/replay", replay, ("POST",)),
)
