"""The catalog as a client sees it: models, indexes and data sets, their versions, aliases and files. Always by HTTP."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import progress_bars
from ..catalog.contracts import (
    AliasesShown,
    AliasShown,
    EntryChange,
    EntryPage,
    EntryShown,
    FilesShown,
    ListQuery,
    VersionPage,
    VersionShown,
    VersionSummary,
)
from ..catalog.entries import Visibility
from ..catalog.kinds import Kind
from ..catalog.listing import Order
from ..contracts import parse
from ..errors import InvalidRequest, Outdated
from .connection import Connection, catalog_request, fetched, pages, sent
from .download import saved
from .steps import Awaited, Blocking, Performer, Step, Steps
from .upload import uploaded

__all__ = ["AsyncEntries", "Entries"]


def _listed(
    of: _Kind,
    words: str = "",
    *,
    task: str | None = None,
    tags: list[str] | tuple[str, ...] = (),
    licence: str | None = None,
    language: str | None = None,
    precision: str | None = None,
    owner: str | None = None,
    visibility: Visibility | None = None,
    sort: Order = "hotness",
    limit: int | None = 100,
) -> Steps[list[EntryShown]]:
    """Entries with all of `words` in name, description, task or tags; at most `limit`, None for all."""
    asked = {"task": task, "licence": licence, "language": language, "precision": precision, "owner": owner, "visibility": visibility}
    query = parse(ListQuery, {"q": words, "sort": sort, "tag": list(tags), **{name: value for name, value in asked.items() if value}})
    return (yield from pages(of.link, EntryPage, (of.kind,), query.model_dump(exclude_none=True, exclude={"limit", "cursor"}), limit))


def _got(of: _Kind, name: str) -> Steps[EntryShown]:
    """What is said of a name. Raises NotFound."""
    return (yield from fetched(of.link, EntryShown, "GET", (of.kind, name)))


def _edited(
    of: _Kind,
    name: str,
    *,
    owner: str | None = None,
    description: str | None = None,
    licence: str | None = None,
    tags: list[str] | None = None,
    languages: list[str] | None = None,
    visibility: Visibility | None = None,
    card: str | None = None,
) -> Steps[EntryShown]:
    """Say something else of a name; what is not given stays."""
    given = {"owner": owner, "description": description, "licence": licence, "tags": tags, "languages": languages}
    given |= {"visibility": visibility, "card": card}
    said = parse(EntryChange, {key: value for key, value in given.items() if value is not None})
    body = said.model_dump(mode="json", exclude_unset=True)
    if not body:
        raise InvalidRequest("there is nothing to change", remedy="Give owner, description, licence, tags, languages, visibility or card.")
    return (yield from fetched(of.link, EntryShown, "PATCH", (of.kind, name), body=body))


def _versions(of: _Kind, name: str, *, limit: int | None = 100) -> Steps[list[VersionSummary]]:
    """The versions of a name, newest first; at most `limit`, None for all."""
    return (yield from pages(of.link, VersionPage, (of.kind, name, "versions"), {}, limit))


def _version(of: _Kind, name: str, version: str | int = "latest", *, alias: str | None = None) -> Steps[VersionShown]:
    """A version with metrics, variations and lineage: by number, by alias, or the latest."""
    number = yield from _number(of, name, version, alias)
    return (yield from fetched(of.link, VersionShown, "GET", (of.kind, name, "versions", number)))


def _card(of: _Kind, name: str, version: str | int = "latest", *, alias: str | None = None) -> Steps[str]:
    """The card of a version, in Markdown. Raises NotFound where there is none."""
    number = yield from _number(of, name, version, alias)
    reply = yield from sent(of.link, lambda: catalog_request(of.link, "GET", (of.kind, name, "versions", number, "card")))
    return str(reply.body, "utf-8")


def _files(of: _Kind, name: str, version: str | int = "latest", *, alias: str | None = None) -> Steps[FilesShown]:
    """The files of a version, with size and sha256."""
    number = yield from _number(of, name, version, alias)
    return (yield from fetched(of.link, FilesShown, "GET", (of.kind, name, "versions", number, "files")))


def _downloaded(
    of: _Kind,
    name: str,
    to: str | os.PathLike[str] | None = None,
    version: str | int = "latest",
    *,
    alias: str | None = None,
    progress: bool = False,
) -> Steps[Path]:
    """Copy the files of a version into a new or empty folder, ./NAME-VERSION by default, verified, all or nothing; the folder."""
    found = yield from _version(of, name, version, alias=alias)
    files = yield from _files(of, name, found.version)
    path = (of.kind, name, "versions", found.version, "files")
    with progress_bars.transfer(f"downloading {name}", disable=not progress) as show:
        return (yield from saved(of.link, path, files, Path(to or f"{name}-{found.version}"), show))


def _deleted(of: _Kind, name: str, version: str | int | None = None) -> Steps[None]:
    """Delete a version, or with none all of a name. Raises Conflict, with `dependants`, while something depends on it."""
    where = (of.kind, name) if version is None else (of.kind, name, "versions", str(version))
    yield from sent(of.link, lambda: catalog_request(of.link, "DELETE", where))


def _aliases(of: _Kind, name: str) -> Steps[list[AliasShown]]:
    """The aliases of a name, with their histories."""
    return (yield from fetched(of.link, AliasesShown, "GET", (of.kind, name, "aliases"))).items


def _aliased(of: _Kind, name: str, alias: str, version: str | int) -> Steps[AliasShown]:
    """Let an alias point to a version."""
    return (yield from fetched(of.link, AliasShown, "PUT", (of.kind, name, "aliases", alias), body={"version": str(version)}))


def _rolled_back(of: _Kind, name: str, alias: str) -> Steps[AliasShown]:
    """Let an alias point to the version before; once more, to the one before that. Raises Conflict where there is none."""
    where = (of.kind, name, "aliases", alias)
    before = yield from sent(of.link, lambda: catalog_request(of.link, "GET", where))
    etag = before.headers.get("etag", "*")
    pointed = AliasShown.model_validate_json(before.body, extra="allow").version
    try:
        return (yield from fetched(of.link, AliasShown, "POST", (*where, "rollback"), headers={"If-Match": etag}))
    except Outdated:  # somebody has moved it, or this very request has, and its answer was lost
        now = yield from fetched(of.link, AliasShown, "GET", where)
        if now.version != pointed and now.history and now.history[-1].rollback:
            return now
        raise


def _unaliased(of: _Kind, name: str, alias: str) -> Steps[None]:
    """Remove an alias; its history stays."""
    yield from sent(of.link, lambda: catalog_request(of.link, "DELETE", (of.kind, name, "aliases", alias)))


def _number(of: _Kind, name: str, version: str | int, alias: str | None) -> Steps[str]:
    if alias is None:
        return str(version)
    return (yield from fetched(of.link, AliasShown, "GET", (of.kind, name, "aliases", alias))).version


@dataclass(frozen=True)
class _Kind:
    """One kind of entries."""

    client: Performer
    link: Connection
    kind: Kind

    def perform(self, step: Step) -> Any:
        """Steps are the client's."""
        return self.client.perform(step)


class Entries(_Kind):
    """Models, indexes or data sets. Raises NotFound, Unauthenticated, Conflict, ... as the platform says."""

    list = Blocking(_listed)
    get = Blocking(_got)
    edit = Blocking(_edited)
    versions = Blocking(_versions)
    version = Blocking(_version)
    card = Blocking(_card)
    files = Blocking(_files)
    download = Blocking(_downloaded)
    upload = Blocking(uploaded)
    delete = Blocking(_deleted)
    aliases = Blocking(_aliases)
    alias = Blocking(_aliased)
    rollback = Blocking(_rolled_back)
    unalias = Blocking(_unaliased)


class AsyncEntries(_Kind):
    """The same, to be awaited."""

    list = Awaited(_listed)
    get = Awaited(_got)
    edit = Awaited(_edited)
    versions = Awaited(_versions)
    version = Awaited(_version)
    card = Awaited(_card)
    files = Awaited(_files)
    download = Awaited(_downloaded)
    upload = Awaited(uploaded)
    delete = Awaited(_deleted)
    aliases = Awaited(_aliases)
    alias = Awaited(_aliased)
    rollback = Awaited(_rolled_back)
    unalias = Awaited(_unaliased)
