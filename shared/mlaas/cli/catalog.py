"""`mlaas catalog`: models, indexes and data sets, their versions and aliases."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from .. import display, progress_bars, storage
from ..catalog import KINDS
from ..catalog import Kind as CatalogKind
from ..errors import InvalidRequest, NotFound
from ..settings import current
from ..storage.presigned import LONGEST
from ..storage.staged import version_of
from . import completion
from .options import Json, open_catalog, says_why

__all__ = ["Alias", "AliasName", "Kind", "Name", "Version", "catalog_app", "kinds"]

Name = Annotated[str, typer.Argument(autocompletion=completion.names)]
AliasName = Annotated[str, typer.Argument(autocompletion=completion.aliases)]
Number = Annotated[str, typer.Argument(metavar="VERSION", autocompletion=completion.versions)]
Version = Annotated[str | None, typer.Option(help="The latest by default.", autocompletion=completion.versions)]
Alias = Annotated[str | None, typer.Option(help="The version that this alias points to.", autocompletion=completion.aliases)]
Kind = Annotated[str, typer.Option(help="models, indexes or datasets.", autocompletion=completion.kinds)]

catalog_app = typer.Typer(help="The catalog of models, indexes and data sets.", invoke_without_command=True)


@catalog_app.callback(epilog="Example: mlaas catalog --kind indexes")
@says_why
def catalog(
    context: typer.Context,
    kind: Annotated[str | None, typer.Option(help="models, indexes or datasets; all by default.", autocompletion=completion.kinds)] = None,
    as_json: Json = False,
) -> None:
    """List what there is with their versions and aliases."""
    if context.invoked_subcommand is None:
        display.catalog({kind: (open_catalog().versions(kind), open_catalog().aliases(kind)) for kind in kinds(kind)}, as_json)


@catalog_app.command("show", epilog="Example: mlaas catalog show infn-structures")
@says_why
def catalog_show(name: Name, version: Version = None, alias: Alias = None, kind: Kind = "models", as_json: Json = False) -> None:
    """Show an entry."""
    display.entry(open_catalog().resolve(kinds(kind)[0], name, alias=alias, revision=version), as_json)


@catalog_app.command("card", epilog="Example: mlaas catalog card infn-structures --alias production")
@says_why
def catalog_card(
    name: Name,
    version: Version = None,
    alias: Alias = None,
    kind: Kind = "models",
    raw: Annotated[bool, typer.Option("--raw", help="Print the Markdown as it is.")] = False,
    as_json: Json = False,
) -> None:
    """Show a model's card: what it is for, its figures, its data, where it comes from; that of its name if it has none of its own."""
    catalog, (of_kind,) = open_catalog(), kinds(kind)
    entry = catalog.resolve(of_kind, name, alias=alias, revision=version)
    said = catalog.entry(of_kind, name).card
    if not (card := entry.get("card") or ({"markdown": said, "figures": {}} if said else None)):
        raise NotFound(
            f"version {entry['version']} of `{name}` has no card",
            field="NAME",
            remedy=f"`mlaas catalog edit {name} --card @FILE` gives it one; models that are trained or exported have their own.",
        )
    display.card(card, raw=raw, as_json=as_json)


@catalog_app.command("alias", epilog="Example: mlaas catalog alias infn-structures production 3")
@says_why
def catalog_alias(name: Name, alias: AliasName, version: Number, kind: Kind = "models", as_json: Json = False) -> None:
    """Let an alias point to a version."""
    entry = open_catalog().set_alias(kinds(kind)[0], name, alias, version)
    display.said(f"{name}@{alias} is version {entry['version']}", entry, as_json)


@catalog_app.command("rollback", epilog="Example: mlaas catalog rollback infn-structures production")
@says_why
def catalog_rollback(name: Name, alias: AliasName, kind: Kind = "models", as_json: Json = False) -> None:
    """Let an alias point to the version before; once more, to the one before that."""
    entry = open_catalog().roll_back(kinds(kind)[0], name, alias)
    display.said(f"{name}@{alias} is version {entry['version']} again", entry, as_json)


@catalog_app.command("links", epilog="Example: mlaas catalog links infn-structures --alias production --expires 12h")
@says_why
def catalog_links(
    name: Name,
    version: Version = None,
    alias: Alias = None,
    kind: Kind = "models",
    expires: Annotated[str, typer.Option(help="How long the links are valid: 90s, 30m, 12h, 7d at the most.")] = "1h",
    as_json: Json = False,
) -> None:
    """Make links with which anybody can download the files of an entry, without credentials. For entries on S3."""
    entry = open_catalog().resolve(kinds(kind)[0], name, alias=alias, revision=version)
    display.links(storage.links(entry["path"], entry["storage_type"], settings=current(), seconds=_seconds(expires)), as_json)


@catalog_app.command("download", epilog="Example: mlaas catalog download infn-structures --to ./infn-structures")
@says_why
def catalog_download(
    name: Name,
    to: Annotated[Path | None, typer.Option(help="A new or empty folder; ./NAME-VERSION by default.")] = None,
    version: Version = None,
    alias: Alias = None,
    kind: Kind = "models",
    as_json: Json = False,
) -> None:
    """Copy the files of an entry into a folder, verified."""
    entry = open_catalog().resolve(kinds(kind)[0], name, alias=alias, revision=version)
    to = to or Path(f"{entry['name']}-{entry['version']}")
    with progress_bars.transfer(f"downloading {name}", disable=as_json) as progress:
        storage.download(entry["path"], entry["storage_type"], to, settings=current(), progress=progress)
    display.said(f"{name} version {entry['version']} is in {to}", {**entry, "folder": str(to)}, as_json)


@catalog_app.command("stage", epilog="Example: mlaas catalog stage infn-structures minilm --to build/models")
@says_why
def catalog_stage(
    names: Annotated[list[str], typer.Argument(help="Models of the catalog.", autocompletion=completion.models)],
    to: Annotated[Path, typer.Option(help="A folder, made if need be; what it has already stays.")],
    alias: Alias = None,
    as_json: Json = False,
) -> None:
    """Put models where functions find them without a download: a folder for each version, for MLAAS_STAGED."""
    entries = [open_catalog().resolve("models", name, alias=alias) for name in names]
    for entry in entries:
        version = version_of(entry["path"])
        if not entry["digest"].startswith(version):
            raise InvalidRequest(
                f"`{version}` of `{entry['name']}` is not named after its files, so no function would find it",
                field="NAMES",
                remedy="Publish the model again with `mlaas export` or a training.",
            )
        entry["folder"] = str(to / version)
        if not (to / version).exists():
            to.mkdir(parents=True, exist_ok=True)
            with progress_bars.transfer(f"staging {entry['name']}", disable=as_json) as progress:
                storage.download(entry["path"], entry["storage_type"], to / version, settings=current(), progress=progress)
    text = "\n".join(f"{one['name']} version {one['version']} is in {one['folder']}" for one in entries)
    display.said(text, {"models": entries}, as_json)


def _seconds(text: str) -> int:
    """The seconds of 90, 90s, 30m, 12h or 7d. Raises InvalidRequest."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text)
    seconds = int(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2] or "s"] if found else 0
    if not 1 <= seconds <= LONGEST:
        raise InvalidRequest("a link cannot be valid for so long", field="--expires", remedy="Give 1s to 7d, for example 30m or 12h.")
    return seconds


def kinds(kind: str | None) -> list[CatalogKind]:
    """The kind that is named, or all. Raises InvalidRequest."""
    if kind and kind not in KINDS:
        raise InvalidRequest(f"there is no kind `{kind}`", field="--kind", remedy=f"Use {', '.join(KINDS)}.")
    return [one for one in KINDS if kind in (None, one)]
