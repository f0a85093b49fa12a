"""`mlaas status`: what runs and how it is."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from .. import display, status
from ..settings import current
from .options import NOT_NOW, Json, says_why

__all__ = ["app"]

app = typer.Typer()


@app.command("status", epilog="Example: mlaas status --watch 5")
@says_why
def status_(
    watch: Annotated[float | None, typer.Option(min=0.5, help="Look again after so many seconds, until Ctrl-C.")] = None,
    as_json: Json = False,
) -> None:
    """Show the functions, what waits in Kafka, the tasks and the storage. The exit status is 4 if one of them is away."""
    while True:
        parts = status.look(current())
        well = all(part.problem is None for part in parts)
        if as_json:
            display.json_({"well": well, "parts": {part.name: part.as_json() for part in parts}})
        else:
            if watch:
                display.console.clear()
            _show(parts)
        if watch is None:
            raise typer.Exit(0 if well else NOT_NOW)
        time.sleep(watch)


def _show(parts: Sequence[status.Part]) -> None:
    for part in parts:
        if part.problem:
            where = f" ({part.problem['field']})" if "field" in part.problem else ""
            display.console.print(f"[bold]{part.name:10}[/] [red]away[/]{where}: {escape(part.problem['detail'])}", soft_wrap=True)
            if "remedy" in part.problem:
                display.console.print(f"{'':10} {escape(part.problem['remedy'])}", soft_wrap=True)
            continue
        lines = _SHOWN[part.name](part.facts)
        display.console.print(f"[bold]{part.name:10}[/] [green]well[/] {escape(lines[0])}", soft_wrap=True)
        for line in lines[1:]:
            display.console.print(line if isinstance(line, Table) else f"{'':10} {escape(line)}", soft_wrap=not isinstance(line, Table))


def _platform(facts: Mapping[str, Any]) -> list[Any]:
    if "functions" not in facts:
        return [f"{facts['url']} (no runner: Knative shows its functions)"]
    table = _table("function", "state", "pid", "deaths")
    for name, one in sorted(facts["functions"].items()):
        table.add_row("", name, one["state"], str(one["pid"] or ""), str(one["restarts"]))
    jobs = [f"jobs {name}: {one['unfinished']} unfinished" for name, one in facts.get("jobs", {}).items() if one["unfinished"]]
    return [facts["url"], table, *jobs]


def _kafka(facts: Mapping[str, Any]) -> list[Any]:
    table = _table("consumer group", "topic", "partitions", "lag")
    for one in facts["lags"]:
        table.add_row("", one["group"], one["topic"], str(one["partitions"]), str(one["lag"]))
    letters = facts["dead_letters"]
    shown = f"dead letters: {letters['count']}" if letters["exists"] else f"there is no topic {letters['topic']}"
    if newest := letters.get("newest"):
        shown += f", the newest {newest['type']} {newest['id']}: {newest['code']} {newest['reason']}"
    return [facts["bootstrap"], *([table] if facts["lags"] else ["no group consumes the platform's topics yet"]), shown]


def _documents(facts: Mapping[str, Any]) -> list[str]:
    tasks = ", ".join(f"{count} {status}" for status, count in facts["tasks"].items()) or "none"
    return [f"{facts['kind']}, tasks: {tasks}; waiting in the outbox: {facts['outbox']}; parked events: {facts['parked']}"]


def _storage(facts: Mapping[str, Any]) -> list[str]:
    s3 = f"; S3 at {facts['s3_endpoint']}" if "s3_endpoint" in facts else ""
    return [f"{facts['free_bytes'] / 1e9:.1f} GB free for local files{s3}"]


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", width=9)
    for column in columns:
        table.add_column(column, justify="right" if column in ("pid", "deaths", "partitions", "lag") else "left")
    return table


_SHOWN = {"platform": _platform, "kafka": _kafka, "documents": _documents, "storage": _storage}
