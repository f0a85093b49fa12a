"""What the command line shows of events that are kept and of those that wait: a row each, and their data only when asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cloudevents.http import CloudEvent
from rich.markup import escape
from rich.table import Table

from . import display, events
from .journal import Kept
from .ledger_entry import Entry
from .replay import Waiting

__all__ = ["described", "kept", "waiting"]


def kept(found: Sequence[Kept], following: str | None, as_json: bool, *, data: bool) -> None:
    """A row for each event; `following` is the cursor of the next page."""
    if as_json:
        display.json_({"events": [_kept(one, data) for one in found], "next": following})
        return
    table = _table("time", "type", "task", "id")
    for one in found:
        table.add_row(one.time[:23].replace("T", " "), one.type, one.task_id, one.id)
    display.console.print(table)
    if data:
        for one in found:
            display.console.print_json(json.dumps(events.to_json(one.event), ensure_ascii=False))
    if following:
        display.note(f"There are more: --before {following}")


def waiting(found: Sequence[Waiting], as_json: bool) -> None:
    """A row for each event that waits, with its reason."""
    if as_json:
        display.json_([_waiting(one, data=False) for one in found])
        return
    table = _table("time", "id", "type", "where", "by", "tries", "reason")
    for one in found:
        status = f" ({one.status})" if one.status == "replayed" else ""
        code = f"{one.reason['status']} " if one.where == "dead-letters" else ""
        reason = f"{code}{one.reason.get('detail', '')}" + (f" [cannot be replayed: {one.obstacle}]" if one.obstacle else "")
        table.add_row(
            one.time[:19].replace("T", " "), one.id, _short(one.type), one.where + status, one.by, str(one.attempts or ""), escape(reason)
        )
    display.console.print(table)


def described(
    event_id: str, found: Kept | None, entries: Sequence[Entry], letters: Sequence[Waiting], as_json: bool, *, data: bool
) -> None:
    """All that is known of one event."""
    known: dict[str, Any] = {"id": event_id}
    if found:
        known["kept"] = _kept(found, data)
    if entries:
        known["ledger"] = [_entry(entry, data) for entry in entries]
    if letters:
        known["dead_letters"] = [_waiting(letter, data) for letter in letters]
    if as_json:
        display.json_(known)
    else:
        display.console.print_json(json.dumps(known, ensure_ascii=False))


def _kept(one: Kept, data: bool) -> dict[str, Any]:
    row = {"id": one.id, "task_id": one.task_id, "type": one.type, "time": one.time}
    return row | ({"event": events.to_json(one.event)} if data else {})


def _entry(one: Entry, data: bool) -> dict[str, Any]:
    row = {name: getattr(one, name) for name in ("capability", "type", "source", "status", "attempts", "reason", "first", "last")}
    reply = {"reply": {"id": one.reply["id"], "type": one.reply["type"]}} if one.reply else {}
    return {**row, **reply, **_content(one.event, data)}


def _waiting(one: Waiting, data: bool) -> dict[str, Any]:
    names = ("id", "type", "where", "status", "by", "attempts", "reason", "time", "obstacle")
    row = {name: value for name in names if (value := getattr(one, name)) is not None}
    return row | _content(one.event, data)


def _content(event: CloudEvent | None, data: bool) -> dict[str, Any]:
    """The attributes of an event, which never hold a user's text, and its data only when they were asked for."""
    if event is None:
        return {}
    return {"event": events.to_json(event) if data else dict(event.get_attributes())}


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("id", "time", "where"))
    return table


def _short(type_: str) -> str:
    return ".".join(known) if (known := events.parse_type(type_)) else type_
