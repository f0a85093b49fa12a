"""`mlaas catalog about`, `versions`, `files`, `aliases`, `unalias`, `dependants` and `delete`: what hangs on a name and on its versions."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import display
from ..catalog import aliases
from ..catalog.dependants import dependants_of
from ..errors import InvalidRequest
from ..settings import current
from . import completion
from .catalog import Alias, AliasName, Kind, Name, Version, kinds
from .catalog_audit import catalog_app
from .options import Json, open_catalog, says_why

__all__ = ["catalog_app"]


@catalog_app.command("about", epilog="Example: mlaas catalog about infn-structures")
@says_why
def catalog_about(name: Name, kind: Kind = "models", as_json: Json = False) -> None:
    """Show what is said of a name, and how much it is used."""
    from ..catalog import usage
    from ..catalog_api import shown

    catalog, (of_kind,) = open_catalog(), kinds(kind)
    entry = catalog.entry(of_kind, name)
    said = shown.entry(entry, usage.of(catalog.documents, of_kind, name), catalog.aliases_of(of_kind, name))
    display.entry(said.model_dump(mode="json", exclude={"href"}), as_json)


@catalog_app.command("versions", epilog="Example: mlaas catalog versions infn-structures")
@says_why
def catalog_versions(name: Name, kind: Kind = "models", as_json: Json = False) -> None:
    """List the versions of a name, newest first."""
    catalog, (of_kind,) = open_catalog(), kinds(kind)
    catalog.resolve(of_kind, name)
    display.catalog({of_kind: (catalog.versions(of_kind, name), {name: catalog.aliases_of(of_kind, name)})}, as_json)


@catalog_app.command("files", epilog="Example: mlaas catalog files infn-structures --alias production")
@says_why
def catalog_files(name: Name, version: Version = None, alias: Alias = None, kind: Kind = "models", as_json: Json = False) -> None:
    """List the files of a version, with size and sha256."""
    from ..catalog_api import files

    entry = open_catalog().resolve(kinds(kind)[0], name, alias=alias, revision=version)
    found = [{"name": one, **record} for one, record in sorted(files.records(entry, current()).items())]
    display.rows(found, ("name", "size", "sha256"), as_json)


@catalog_app.command("aliases", epilog="Example: mlaas catalog aliases infn-structures")
@says_why
def catalog_aliases(name: Name, kind: Kind = "models", as_json: Json = False) -> None:
    """List the aliases of a name, and every move of theirs."""
    catalog, (of_kind,) = open_catalog(), kinds(kind)
    catalog.resolve(of_kind, name)
    kept = aliases.of(catalog.documents, of_kind, name)
    found = [{"alias": stored.body["alias"], **move} for stored in kept for move in aliases.history(stored.body)]
    display.rows(found, ("alias", "version", "moved", "by", "rollback"), as_json)


@catalog_app.command("unalias", epilog="Example: mlaas catalog unalias infn-structures staging")
@says_why
def catalog_unalias(name: Name, alias: AliasName, kind: Kind = "models", as_json: Json = False) -> None:
    """Remove an alias; its history stays."""
    aliases.drop(open_catalog().documents, kinds(kind)[0], name, alias)
    display.said(f"{name} has no alias {alias} any more", {"name": name, "alias": alias}, as_json)


@catalog_app.command("dependants", epilog="Example: mlaas catalog dependants minilm")
@says_why
def catalog_dependants(name: Name, version: Version = None, alias: Alias = None, kind: Kind = "models", as_json: Json = False) -> None:
    """List what depends on a version, and keeps it from being deleted."""
    catalog, (of_kind,) = open_catalog(), kinds(kind)
    entry = catalog.resolve(of_kind, name, alias=alias, revision=version)
    found = [one.document() for one in dependants_of(catalog.documents, of_kind, entry)]
    display.rows(found, ("kind", "name", "version"), as_json)


@catalog_app.command("delete", epilog="Example: mlaas catalog delete infn-structures 2    or: mlaas catalog delete infn-structures --all")
@says_why
def catalog_delete(
    name: Name,
    version: Annotated[str | None, typer.Argument(autocompletion=completion.versions)] = None,
    all_: Annotated[bool, typer.Option("--all", help="All versions, unless something depends on one.")] = False,
    kind: Kind = "models",
    as_json: Json = False,
) -> None:
    """Delete a version that nothing depends on, or with --all every one; their files stay in the storage."""
    if all_ == (version is not None):
        raise InvalidRequest("which version?", field="VERSION", remedy="Give one that `mlaas catalog versions NAME` lists, or --all.")
    catalog, (of_kind,) = open_catalog(), kinds(kind)
    if version is None:
        catalog.delete_all(of_kind, name)
        display.said(f"all versions of {name} are deleted", {"name": name}, as_json)
    else:
        display.said(f"version {version} of {name} is deleted", catalog.delete(of_kind, name, version), as_json)
