"""`mlaas catalog`: models and indexes, their versions and aliases."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import display
from ..errors import InvalidRequest
from .options import Json, open_catalog, says_why

__all__ = ["catalog_app"]

catalog_app = typer.Typer(help="The catalog of models and indexes.", invoke_without_command=True)


@catalog_app.callback(epilog="Example: mlaas catalog --kind indexes")
@says_why
def catalog(
    context: typer.Context,
    kind: Annotated[str | None, typer.Option(help="models or indexes; both by default.")] = None,
    as_json: Json = False,
) -> None:
    """List models and indexes with their versions and aliases."""
    if context.invoked_subcommand is None:
        display.catalog({kind: (open_catalog().versions(kind), open_catalog().aliases(kind)) for kind in _kinds(kind)}, as_json)


@catalog_app.command("show", epilog="Example: mlaas catalog show infn-structures")
@says_why
def catalog_show(
    name: str,
    version: Annotated[str | None, typer.Option(help="The latest by default.")] = None,
    kind: Annotated[str, typer.Option(help="models or indexes.")] = "models",
    as_json: Json = False,
) -> None:
    """Show an entry."""
    display.entry(open_catalog().resolve(_kinds(kind)[0], name, revision=version), as_json)


@catalog_app.command("alias", epilog="Example: mlaas catalog alias infn-structures production 3")
@says_why
def catalog_alias(
    name: str, alias: str, version: str, kind: Annotated[str, typer.Option(help="models or indexes.")] = "models", as_json: Json = False
) -> None:
    """Let an alias point to a version."""
    entry = open_catalog().set_alias(_kinds(kind)[0], name, alias, version)
    display.said(f"{name}@{alias} is version {entry['version']}", entry, as_json)


def _kinds(kind: str | None) -> list[str]:
    kinds = ["models", "indexes"]
    if kind and kind not in kinds:
        raise InvalidRequest(f"there is no kind `{kind}`", field="--kind", remedy="Use models or indexes.")
    return [kind] if kind else kinds
