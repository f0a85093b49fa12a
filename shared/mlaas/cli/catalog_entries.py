"""`mlaas catalog list`, `edit` and `push`: entries as a whole, and what was made elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import display, jobs
from ..catalog import listing
from ..contracts import parse
from ..errors import InvalidRequest
from ..settings import current
from . import completion
from .catalog import Kind, Name, catalog_app, kinds
from .options import Json, open_catalog, says_why, text_argument

__all__ = ["catalog_app"]

Tags = Annotated[list[str] | None, typer.Option("--tag", help="May be given several times.")]
Visible = Annotated[str | None, typer.Option(help="public, institute or private.")]


@catalog_app.command("list", epilog="Example: mlaas catalog list physics --task masked-lm --sort downloads")
@says_why
def catalog_list(
    words: Annotated[list[str] | None, typer.Argument(help="Words of the name, the description, the task or a tag.")] = None,
    kind: Kind = "models",
    task: str | None = None,
    tag: Tags = None,
    licence: str | None = None,
    language: str | None = None,
    precision: str | None = None,
    owner: str | None = None,
    visibility: Visible = None,
    sort: Annotated[str, typer.Option(help="hotness, downloads, date or name.")] = "hotness",
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    cursor: Annotated[str | None, typer.Option(help="`next` of the page before.")] = None,
    as_json: Json = False,
) -> None:
    """Find entries."""
    from ..catalog import contracts
    from ..catalog_api import shown

    given = {"task": task, "licence": licence, "language": language, "precision": precision, "owner": owner, "visibility": visibility}
    given |= {"q": " ".join(words or ()), "sort": sort, "cursor": cursor}
    asked = parse(contracts.ListQuery, {**given, "tag": tag or [], "limit": limit})
    catalog, (of_kind,) = open_catalog(), kinds(kind)
    page = listing.search(catalog.documents, of_kind, asked.wanted(), limit=asked.limit, cursor=asked.cursor)
    pointing = catalog.aliases(of_kind)
    items = [shown.entry(one.entry, one.usage, pointing.get(one.entry.name, {})).model_dump(mode="json") for one in page.found]
    display.entries({"items": items, "next": page.cursor, "total": page.total}, as_json)


@catalog_app.command("edit", epilog="Example: mlaas catalog edit infn-structures --visibility public --tag infn --owner ada")
@says_why
def catalog_edit(
    name: Name,
    kind: Kind = "models",
    owner: str | None = None,
    description: str | None = None,
    licence: str | None = None,
    tag: Tags = None,
    language: Annotated[list[str] | None, typer.Option("--language", help="May be given several times.")] = None,
    visibility: Visible = None,
    card: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Markdown for versions that have no card of their own; @FILE reads it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say something else of a name; what is not given stays."""
    from ..catalog import contracts

    given: dict[str, Any] = {"owner": owner, "description": description, "licence": licence, "visibility": visibility}
    given |= {"tags": tag, "languages": language}
    given["card"] = text_argument(card, "--card") if card is not None else None
    changes = {field: value for field, value in given.items() if value is not None}
    if not changes:
        raise InvalidRequest("there is nothing to change", remedy="`mlaas catalog edit --help` lists what can be said.")
    said = parse(contracts.EntryChange, changes).model_dump(mode="json", exclude_unset=True)
    catalog, (of_kind,) = open_catalog(), kinds(kind)
    catalog.entry(of_kind, name)
    entry = catalog.entries.change(of_kind, name, said)
    display.said(f"{name} is changed", json.loads(entry.model_dump_json()), as_json)


@catalog_app.command("push", epilog="Example: mlaas catalog push datasets affiliations affiliations.tsv --licence cc0-1.0")
@says_why
def catalog_push(
    kind: Annotated[str, typer.Argument(help="models or datasets.", autocompletion=completion.kinds)],
    name: str,
    path: Annotated[Path, typer.Argument(exists=True, help="An archive, a data file, or a folder.")],
    task: str | None = None,
    licence: str | None = None,
    owner: str | None = None,
    description: str | None = None,
    tag: Tags = None,
    visibility: Annotated[str, typer.Option(help="public, institute or private.")] = "institute",
    parent: Annotated[str | None, typer.Option(help="The model that it was made from, as NAME:VERSION.")] = None,
    dataset: Annotated[str | None, typer.Option(help="The data set that it was trained on, as NAME:VERSION.")] = None,
    as_json: Json = False,
) -> None:
    """Publish a model or a data set that was made elsewhere."""
    from ..catalog import contracts
    from ..catalog_api import uploads

    filename = f"{path.resolve().name}.tar" if path.is_dir() else path.name
    given = {"task": task, "licence": licence, "owner": owner, "description": description, "parent": parent, "dataset": dataset}
    said = parse(contracts.UploadQuery, {**given, "filename": filename, "tag": tag or [], "visibility": visibility})
    parse(contracts.EntryName, {"name": name})
    settings, (of_kind,) = current(), kinds(kind)
    with jobs.workspace(settings) as folder:
        if path.is_dir():
            shutil.make_archive(str(folder / filename.removesuffix(".tar")), "tar", path)
        else:
            shutil.copyfile(path, folder / filename)
        done = uploads.take(of_kind, name, folder / filename, uploads.About.of(said), settings)
    if done.version:
        display.said(f"{name} version {done.version['version']} is published", done.version, as_json)
    else:
        display.said(f"task {done.task_id} exports it to ONNX and publishes it", {"task_id": done.task_id}, as_json)
