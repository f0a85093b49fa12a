"""The command line. Every command has --json for scripts and an example in its --help.

Exit statuses: 0 done, 1 a task failed or a defect, 2 wrong usage, 3 the request was refused, 4 not now (the platform is
away or too slow), 130 interrupted.
"""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from .. import __version__
from . import catalog_versions, events, platform, predict, quotas, render, status, work

__all__ = ["app", "main"]

app = typer.Typer(
    name="mlaas",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Machine learning as a service: predictions, trainings and searchable indexes by events and by HTTP.",
    epilog="Exit statuses: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 not now, 130 interrupted.",
)
for group in (platform, status, predict, work, events):
    app.add_typer(group.app)
app.add_typer(work.tasks_app, name="tasks")
app.add_typer(catalog_versions.catalog_app, name="catalog")
app.add_typer(events.events_app, name="events")
app.add_typer(quotas.quotas_app, name="quotas")
app.add_typer(render.render_app, name="render")


@app.callback()
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """The program `mlaas`: SIGTERM stops it as cleanly as Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app()
