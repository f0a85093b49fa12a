"""`mlaas catalog audit`: who changed what."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from .. import display
from ..contracts import parse
from . import completion
from .catalog_entries import catalog_app
from .options import Json, open_catalog, says_why

__all__ = ["catalog_app"]

Moment = Annotated[str | None, typer.Option(help="ISO 8601 with its offset from UTC, e.g. 2026-01-31T12:00:00Z.")]


@catalog_app.command("audit", epilog="Example: mlaas catalog audit infn-structures --since 2026-01-31T00:00:00Z")
@says_why
def catalog_audit(
    name: Annotated[str | None, typer.Argument(help="Only changes of this name.", autocompletion=completion.names)] = None,
    kind: Annotated[str | None, typer.Option(help="models, indexes or datasets; all by default.", autocompletion=completion.kinds)] = None,
    by: Annotated[str | None, typer.Option(help="Only what this subject asked for; `token` is MLAAS_TOKEN's.")] = None,
    operation: Annotated[str | None, typer.Option(help="Only this operation, e.g. deleteVersion or web.cancel.")] = None,
    since: Moment = None,
    until: Moment = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    cursor: Annotated[str | None, typer.Option(help="`next` of the page before.")] = None,
    as_json: Json = False,
) -> None:
    """Show who asked for which change by HTTP or in the web app, and what became of it; newest first."""
    from ..catalog import audit, contracts
    from ..catalog_api import task_operations

    given = {"name": name, "kind": kind, "subject": by, "operation": operation, "since": since, "until": until, "cursor": cursor}
    asked = parse(contracts.ChangesQuery, {**given, "limit": limit})
    found, following = audit.find(
        open_catalog().documents,
        subject=asked.subject,
        operation=asked.operation,
        kind=asked.kind,
        name=asked.name,
        time=task_operations.span(asked.since, asked.until),
        limit=asked.limit,
        before=task_operations.cursor(asked.cursor),
    )
    display.changes([dataclasses.asdict(one) for one in found], following, as_json)
