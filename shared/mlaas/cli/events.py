"""`mlaas send` and `watch`: events on Kafka. `mlaas events`: events that are kept, and those that wait for an operator."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from .. import display, event_display, events
from ..client import DEAD_LETTERS, EVENTS, EventClient
from ..errors import InvalidRequest, MlaasError, NotFound
from ..replay import Desk
from ..settings import current
from .options import REFUSED, Json, Timeout, json_argument, says_why

__all__ = ["app", "events_app"]

app = typer.Typer()
events_app = typer.Typer(help="Events that tasks made known, and events that failed for good.", invoke_without_command=True)

Data = Annotated[bool, typer.Option(help="Show the events' data as well, which may hold what a user sent.")]
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@app.command(
    epilog='Example: mlaas send classify \'{"model": {"name": "infn-structures"}, "predict_input": {"input_text": ["INFN Pisa"]}}\' --wait'
)
@says_why
def send(
    capability: Annotated[str, typer.Argument(help="A function such as classify, fill_mask, search or train; or a whole event type.")],
    data: Annotated[str, typer.Argument(help="The request as JSON, @FILE, or - for standard input.")],
    id: Annotated[str | None, typer.Option(help="The event's id; the same id from the same source gives the same reply.")] = None,
    source: Annotated[str, typer.Option(help="The event's source.")] = "/mlaas/cli",
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the reply and print it.")] = False,
    structured: Annotated[bool, typer.Option(help="Send a structured CloudEvent instead of a binary one.")] = False,
    timeout: Timeout = 60.0,
    as_json: Json = False,
) -> None:
    """Publish a request to Kafka as a CloudEvent."""
    kind = capability if "." in capability else events.event_type(capability.replace("-", "_"), "requested")
    event = events.build(kind, source, json_argument(data), id=id)
    with EventClient(current()) as client:
        client.send([event], structured=structured)
        if not wait:
            display.event(event, as_json)
            return
        reply = client.replies([event["id"]], seconds=timeout)[event["id"]]
    display.event(reply, as_json, data=True)
    if reply["type"].endswith(".failed.v1"):
        raise typer.Exit(REFUSED)


@app.command(epilog="Example: mlaas watch --type train")
@says_why
def watch(
    type: Annotated[str | None, typer.Option(help="Only events whose type contains this.")] = None,
    from_beginning: Annotated[bool, typer.Option(help="Begin with the oldest event that Kafka holds.")] = False,
    dead_letters: Annotated[bool, typer.Option(help="Watch the dead letters, with their reasons.")] = False,
    seconds: Annotated[float | None, typer.Option(help="Stop after this time.")] = None,
    data: Annotated[bool, typer.Option(help="Show the events' data as well.")] = False,
    as_json: Json = False,
) -> None:
    """Show the platform's events as they arrive. Ctrl-C ends it."""
    with EventClient(current(), topic=DEAD_LETTERS if dead_letters else EVENTS) as client:
        if from_beginning:
            client.from_beginning()
        for event in client.watch(seconds=seconds):
            if type is None or type in event["type"]:
                display.event(event, as_json, data=data)


@events_app.callback(epilog="Example: mlaas events --type train.succeeded --since 7d")
@says_why
def list_(
    context: typer.Context,
    task: Annotated[str | None, typer.Option(help="Only events of this task.")] = None,
    type: Annotated[str | None, typer.Option(help="Only these: train.succeeded, train, or a whole event type.")] = None,
    since: Annotated[str | None, typer.Option(help="Not before: 2026-01-31, 2026-01-31T12:00 (UTC), or 90m, 12h, 7d ago.")] = None,
    until: Annotated[str | None, typer.Option(help="Before: as --since.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    before: Annotated[str | None, typer.Option(metavar="CURSOR", help="The next page, as the last one says.")] = None,
    data: Data = False,
    as_json: Json = False,
) -> None:
    """List the events that tasks made known, newest first."""
    if context.invoked_subcommand is not None:
        return
    from ..documents import Between, shared
    from ..journal import Journal

    span = Between(_moment("--since", since), _moment("--until", until)) if since or until else None
    found = Journal(shared()).find(task_id=task, type=type, time=span, limit=limit, before=_cursor(before))
    event_display.kept(found, found[-1].cursor if len(found) == limit else None, as_json, data=data)


@events_app.command("parked", epilog="Example: mlaas events parked --json")
@says_why
def parked(as_json: Json = False) -> None:
    """List the events that failed for good: parked by a function, or among the broker's dead letters."""
    found, away = _desk().waiting()
    event_display.waiting(found, as_json)
    if away:
        display.note(f"The dead letters are not listed: {away.detail}. {away.remedy or ''}".rstrip())


@events_app.command("show", epilog="Example: mlaas events show 7d0c... --data")
@says_why
def show(event_id: Annotated[str, typer.Argument(metavar="ID")], data: Data = False, as_json: Json = False) -> None:
    """Show all that is known of one event."""
    from ..documents import shared
    from ..journal import Journal
    from ..ledger import Ledger

    letters, away = [], None
    try:
        letters = [one for one in _desk().letters(replayed=True) if one.id == event_id]
    except MlaasError as error:
        away = error
    kept, entries = Journal(shared()).get(event_id), Ledger(shared()).get(event_id)
    if away:
        display.note(f"The dead letters were not searched: {away.detail}.")
    if not (kept or entries or letters):
        raise NotFound("there is no such event", field="ID", remedy="`mlaas events` and `mlaas events parked` list them.")
    event_display.described(event_id, kept, entries, letters, as_json, data=data)


@events_app.command("replay", epilog="Example: mlaas events replay 7d0c...    or: mlaas events replay --all")
@says_why
def replay(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID...")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Everything that waits and can be replayed.")] = False,
    as_json: Json = False,
) -> None:
    """Publish events that failed again, unchanged and with the same ids, once what they failed at works."""
    if bool(ids) == all_:
        raise InvalidRequest("which events?", field="ID", remedy="Give ids that `mlaas events parked` lists, or --all.")
    published = _desk().replay(None if all_ else ids)
    display.said("\n".join(f"replayed {one}" for one in published) or "nothing waits that can be replayed", published, as_json)


def _desk() -> Desk:
    from ..documents import shared

    return Desk(shared(), current())


def _moment(option: str, text: str | None) -> str | None:
    """A time as the journal has it: ISO 8601 in UTC with milliseconds."""
    if text is None:
        return None
    try:
        if text[:-1].isdigit() and text[-1:] in _UNITS:
            moment = datetime.now(UTC) - timedelta(**{_UNITS[text[-1]]: int(text[:-1])})
        else:
            moment = datetime.fromisoformat(text)
            moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidRequest("this is no time", field=option, remedy="Give 2026-01-31, 2026-01-31T12:00Z, or 90m, 12h, 7d ago.") from None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _cursor(text: str | None) -> str | None:
    if text is not None and not text.partition(":")[0].isdigit():
        raise InvalidRequest("this is no cursor", field="--before", remedy="Give what the previous page says.")
    return text
