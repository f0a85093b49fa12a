"""`mlaas send` and `watch`: events on Kafka."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import display, events
from ..client import DEAD_LETTERS, EVENTS, EventClient
from ..settings import current
from .options import REFUSED, Json, Timeout, json_argument, says_why

__all__ = ["app"]

app = typer.Typer()


@app.command(
    epilog='Example: mlaas send classify \'{"model": {"name": "infn-structures"}, "predict_input": {"input_text": ["INFN Pisa"]}}\' --wait'
)
@says_why
def send(
    capability: Annotated[str, typer.Argument(help="classify, fill_mask, search, index or train; or a whole event type.")],
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
