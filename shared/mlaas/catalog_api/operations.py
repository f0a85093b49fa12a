"""The operations on the catalog: one table, which the routes and the OpenAPI description are made from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any

import flask
from pydantic import BaseModel

from .. import jobs
from ..catalog import KINDS, Catalog, Kind, aliases, contracts, listing, usage
from ..catalog.entries import Entry
from ..catalog.kinds import NOUNS
from ..contracts import Contract
from ..errors import InvalidRequest, NotFound, Outdated, TooLarge
from ..settings import Settings
from . import files, quotas, received, shown, uploads
from .access import Principal
from .roles import ROLES, Role

__all__ = ["OPERATIONS", "Asked", "Operation", "put_alias", "roll_back_alias", "uploaded"]

_ENTRY = "/v1/{kind}/{name}"
_VERSION = f"{_ENTRY}/versions/{{version}}"
_ALIAS = f"{_ENTRY}/aliases/{{alias}}"


@dataclass(frozen=True)
class Asked:
    """A request: who asks, for what, and under which condition."""

    catalog: Catalog
    principal: Principal
    settings: Settings
    path: dict[str, str]
    query: Any = None
    body: Any = None
    if_match: str | None = None
    if_none_match: str | None = None

    @property
    def kind(self) -> Kind:
        """Models, indexes or data sets. Raises NotFound."""
        found = next((kind for kind in KINDS if kind == self.path["kind"]), None)
        if found is None:
            raise NotFound("there is no such kind of entry", field="kind", remedy=f"Use {', '.join(KINDS)}.")
        return found

    @property
    def name(self) -> str:
        """The entry's name."""
        return self.path["name"]

    def entry(self) -> Entry:
        """The entry, if whoever asks may read it. Raises NotFound."""
        entry = self.catalog.entry(self.kind, self.name)
        if not self.principal.may_read(entry):
            raise NotFound(
                f"the catalog has no {NOUNS[self.kind]} `{self.name}`", field="name", remedy="Some can be seen only with a token: send one."
            )
        return entry

    def require_owner(self) -> None:
        """Raise Forbidden where the name is somebody else's, NotFound where that may not be known; a name that is free is nobody's."""
        with suppress(NotFound):
            self.catalog.entry(self.kind, self.name)  # which makes the entry of what was published before there were entries
        entry = self.catalog.entries.get(self.kind, self.name)
        if entry and not self.principal.owns(entry):
            if entry.latest and not self.principal.may_read(entry):
                self.entry()
            self.principal.require_owner(entry)

    def version(self) -> dict[str, Any]:
        """The version, `latest` included, if whoever asks may read its entry. Raises NotFound."""
        self.entry()
        number = self.path["version"]
        return self.catalog.resolve(self.kind, self.name, revision=None if number == "latest" else number)

    def revision(self) -> int | None:
        """What is to be changed has this revision, 0 for what must not be there; None for whatever it is. Raises Outdated."""
        if self.if_none_match == "*":
            return 0
        if self.if_match in (None, "*"):
            return None
        text = str(self.if_match).strip('"')
        if not text.isascii() or not text.isdigit():
            raise Outdated("`If-Match` is not the `ETag` of this", field="If-Match", remedy="Send the `ETag` that reading it gave.")
        return int(text)

    @property
    def quotas(self) -> quotas.Quotas | None:
        """The quotas that hold for whoever asks; None for an administrator, who has none."""
        return None if self.principal.has("admin") else quotas.Quotas(self.catalog.documents, self.settings)

    def pointing(self) -> dict[str, str]:
        """Alias to version."""
        return self.catalog.aliases_of(self.kind, self.name)


Answer = BaseModel | flask.Response | tuple[BaseModel, str]  # with the ETag


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path. `handler` gives a model, a model with its ETag, or a response that is no JSON.

    Who may is said by `roles`, under its `id`.
    """

    id: str
    method: str
    path: str
    handler: Callable[[Asked], Answer]
    summary: str
    query: type[Contract] | None = None
    body: type[Contract] | None = None
    answer: type[BaseModel] | None = None
    media: str = "application/json"
    changes: bool = False
    conditional: bool = False
    statuses: tuple[int, ...] = field(default=())
    upload: bool = False
    counts: bool = True  # for the quota of requests

    @property
    def role(self) -> Role:
        """The role that it needs."""
        return ROLES[self.id]


def list_entries(asked: Asked) -> Answer:
    query: contracts.ListQuery = asked.query
    page = listing.search(
        asked.catalog.documents, asked.kind, query.wanted(), readable=asked.principal.may_read, limit=query.limit, cursor=query.cursor
    )
    pointing = asked.catalog.aliases(asked.kind)
    items = [shown.entry(one.entry, one.usage, pointing.get(one.entry.name, {})) for one in page.found]
    return contracts.EntryPage(items=items, next=page.cursor, total=page.total)


def get_entry(asked: Asked) -> Answer:
    return _entry(asked, asked.entry())


def change_entry(asked: Asked) -> Answer:
    asked.entry()
    changes = asked.body.model_dump(mode="json", exclude_unset=True)
    lists = {name: changes[name] or [] for name in ("tags", "languages") if name in changes}
    texts = {"description": changes["description"] or ""} if "description" in changes else {}
    if changes.get("visibility", "") is None:
        raise InvalidRequest("`visibility` cannot be empty", field="visibility", remedy="Use public, institute or private.")
    room: AbstractContextManager[None] = nullcontext()
    if "owner" in changes:
        asked.principal.require_giving(changes["owner"])
        if asked.quotas and changes["owner"] != asked.entry().owner:
            room = asked.quotas.held(changes["owner"], quotas.size_of(asked.catalog, asked.kind, asked.name))
    with room:
        changed = asked.catalog.entries.change(asked.kind, asked.name, {**changes, **lists, **texts}, if_revision=asked.revision())
    return _entry(asked, changed)


def _entry(asked: Asked, entry: Entry) -> Answer:
    used = usage.of(asked.catalog.documents, asked.kind, asked.name)
    return shown.entry(entry, used, asked.pointing()), str(entry.revision)


def delete_entry(asked: Asked) -> Answer:
    entry, revision = asked.entry(), asked.revision()
    if revision is not None and revision != entry.revision:
        raise Outdated(f"`{asked.name}` has been changed meanwhile", remedy="Read it again, and decide anew.")
    asked.catalog.delete_all(asked.kind, asked.name, by=asked.principal.subject)
    return flask.Response(status=204)


def list_versions(asked: Asked) -> Answer:
    asked.entry()
    found, following = asked.catalog.page(asked.kind, asked.name, limit=asked.query.limit, before=asked.query.cursor)
    pointing = asked.pointing()
    return contracts.VersionPage(items=[shown.summary(asked.kind, body, pointing) for body in found], next=following)


def get_version(asked: Asked) -> Answer:
    return shown.version(asked.kind, asked.version(), asked.entry(), asked.pointing())


def upload_version(asked: Asked) -> Answer:
    answer = uploaded(asked, flask.request.stream, flask.request.content_length)
    status = 201 if answer.version else 202
    return flask.Response(answer.model_dump_json(exclude_none=True), status, {"Location": answer.href}, content_type="application/json")


def uploaded(asked: Asked, stream: IO[bytes], length: int | None = None) -> contracts.Uploaded:
    """Publish the file in `stream`, of `length` bytes if that is known, if whoever asks may; `asked.query` says what it is.

    Raises as `received.receive` and `uploads.take` do.
    """
    said: contracts.UploadQuery = asked.query
    if asked.catalog.versions(asked.kind, asked.name, limit=1):
        asked.entry()
    if not asked.principal.has("admin"):
        said = said.model_copy(update={"owner": said.owner or asked.principal.subject})
        asked.principal.require_giving(said.owner)
        _check_readable(asked, said)
    with jobs.workspace(asked.settings) as folder:
        file = folder / said.filename
        received.receive(stream, file, *_most(asked, said), length=length)
        asked.require_owner()  # the upload may have taken minutes
        room = partial(asked.quotas.held, _owner(asked, said)) if asked.quotas else uploads.unlimited
        done = uploads.take(asked.kind, asked.name, file, uploads.About.of(said, asked.principal.subject), asked.settings, room)
    where = shown.href(asked.kind, asked.name)
    if done.version is None:
        return contracts.Uploaded(status="pending", task_id=done.task_id, href=where)
    number = done.version["version"]
    return contracts.Uploaded(status="published", version=number, href=f"{where}/versions/{number}")


def _owner(asked: Asked, said: contracts.UploadQuery) -> str | None:
    """Whose storage an upload takes."""
    entry = asked.catalog.entries.get(asked.kind, asked.name)
    return entry.owner if entry else said.owner


def _most(asked: Asked, said: contracts.UploadQuery) -> tuple[int, TooLarge | None]:
    """How many bytes an upload may have, and why no more where that is not MLAAS_UPLOAD_BYTES."""
    most, owner = asked.settings.upload_bytes, _owner(asked, said)
    if asked.quotas and owner and (room := asked.quotas.room(owner)) is not None and room < most:
        return room, asked.quotas.full(owner)
    return most, None


def _check_readable(asked: Asked, said: contracts.UploadQuery) -> None:
    """Raise NotFound where an upload names as its origin what its sender may not read."""
    origins: tuple[tuple[Kind, str, str | None], ...] = (("models", "parent", said.parent), ("datasets", "dataset", said.dataset))
    for kind, field_, ref in origins:
        name = (ref or "").partition(":")[0]
        if name and not ((entry := asked.catalog.entries.get(kind, name)) and asked.principal.may_read(entry)):
            raise NotFound(f"the catalog has no {NOUNS[kind]} `{name}`", field=field_, remedy="Leave it out, or name one that you see.")


def delete_version(asked: Asked) -> Answer:
    body = asked.version()
    asked.catalog.delete(asked.kind, asked.name, body["version"], by=asked.principal.subject)
    return flask.Response(status=204)


def get_card(asked: Asked) -> Answer:
    card = shown.card_of(asked.version(), asked.entry())
    if card is None:
        raise NotFound("this version has no card", field="version", remedy="Say something with `card` of its entry, or train it again.")
    return flask.Response(card, content_type="text/markdown; charset=utf-8")


def list_files(asked: Asked) -> Answer:
    body = asked.version()
    base = shown.href(asked.kind, asked.name, "versions", body["version"], "files")
    found = sorted(files.records(body, asked.settings).items())
    return contracts.FilesShown(items=[contracts.FileShown(name=name, **record, href=f"{base}/{name}") for name, record in found])


def get_file(asked: Asked) -> Answer:
    response = files.send(asked.version(), asked.path["file"], asked.settings)
    if flask.request.method == "GET" and response.status_code in (200, 307):  # not for each part of one download
        usage.record(asked.catalog.documents, asked.kind, asked.name, "downloads")
    return response


def list_aliases(asked: Asked) -> Answer:
    asked.entry()
    found = aliases.of(asked.catalog.documents, asked.kind, asked.name)
    return contracts.AliasesShown(items=[shown.alias(stored.body) for stored in found])


def get_alias(asked: Asked) -> Answer:
    asked.entry()
    return _alias(asked)


def put_alias(asked: Asked) -> Answer:
    asked.entry()
    how = {"by": asked.principal.subject, "if_revision": asked.revision()}
    asked.catalog.set_alias(asked.kind, asked.name, asked.path["alias"], asked.body.version, **how)
    return _alias(asked)


def roll_back_alias(asked: Asked) -> Answer:
    asked.entry()
    how = {"by": asked.principal.subject, "if_revision": asked.revision()}
    asked.catalog.roll_back(asked.kind, asked.name, asked.path["alias"], **how)
    return _alias(asked)


def delete_alias(asked: Asked) -> Answer:
    asked.entry()
    how: dict[str, Any] = {"by": asked.principal.subject, "if_revision": asked.revision()}
    aliases.drop(asked.catalog.documents, asked.kind, asked.name, asked.path["alias"], **how)
    return flask.Response(status=204)


def _alias(asked: Asked) -> Answer:
    stored = aliases.find(asked.catalog.documents, asked.kind, asked.name, asked.path["alias"])
    return shown.alias(stored.body), str(stored.revision)


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        id="listEntries",
        method="GET",
        path="/v1/{kind}",
        handler=list_entries,
        summary="Find entries.",
        query=contracts.ListQuery,
        answer=contracts.EntryPage,
    ),
    Operation(id="getEntry", method="GET", path=_ENTRY, handler=get_entry, summary="What is said of a name.", answer=contracts.EntryShown),
    Operation(
        id="changeEntry",
        method="PATCH",
        path=_ENTRY,
        handler=change_entry,
        summary="Say something else of a name.",
        body=contracts.EntryChange,
        answer=contracts.EntryShown,
        changes=True,
        conditional=True,
    ),
    Operation(
        id="deleteEntry",
        method="DELETE",
        path=_ENTRY,
        handler=delete_entry,
        summary="Delete all versions of a name, unless something depends on one.",
        changes=True,
        conditional=True,
        statuses=(409,),
    ),
    Operation(
        id="listVersions",
        method="GET",
        path=f"{_ENTRY}/versions",
        handler=list_versions,
        summary="The versions of a name, newest first.",
        query=contracts.PageQuery,
        answer=contracts.VersionPage,
    ),
    Operation(
        id="uploadVersion",
        method="POST",
        path=f"{_ENTRY}/versions",
        handler=upload_version,
        summary="Publish a model or a data set that was made elsewhere; the body is the file.",
        query=contracts.UploadQuery,
        answer=contracts.Uploaded,
        changes=True,
        upload=True,
        statuses=(201, 202, 413),
    ),
    Operation(
        id="getVersion",
        method="GET",
        path=_VERSION,
        handler=get_version,
        summary="A version: metrics, variations, lineage.",
        answer=contracts.VersionShown,
    ),
    Operation(
        id="deleteVersion",
        method="DELETE",
        path=_VERSION,
        handler=delete_version,
        summary="Delete a version, unless something depends on it; its files stay in the storage.",
        changes=True,
        statuses=(409,),
    ),
    Operation(
        id="getCard", method="GET", path=f"{_VERSION}/card", handler=get_card, summary="The card of a version.", media="text/markdown"
    ),
    Operation(
        id="listFiles",
        method="GET",
        path=f"{_VERSION}/files",
        handler=list_files,
        summary="The files of a version, with links.",
        answer=contracts.FilesShown,
    ),
    Operation(
        id="getFile",
        method="GET",
        path=f"{_VERSION}/files/{{file}}",
        handler=get_file,
        summary="A file, or the part that `Range` names; from S3 by a link.",
        media="application/octet-stream",
        statuses=(206, 304, 307, 416),
    ),
    Operation(
        id="listAliases",
        method="GET",
        path=f"{_ENTRY}/aliases",
        handler=list_aliases,
        summary="The aliases of a name, with their histories.",
        answer=contracts.AliasesShown,
    ),
    Operation(
        id="getAlias", method="GET", path=_ALIAS, handler=get_alias, summary="An alias, and where it pointed.", answer=contracts.AliasShown
    ),
    Operation(
        id="putAlias",
        method="PUT",
        path=_ALIAS,
        handler=put_alias,
        summary="Let an alias point to a version.",
        body=contracts.AliasTarget,
        answer=contracts.AliasShown,
        changes=True,
        conditional=True,
    ),
    Operation(
        id="rollBackAlias",
        method="POST",
        path=f"{_ALIAS}/rollback",
        handler=roll_back_alias,
        summary="Let an alias point to the version before.",
        answer=contracts.AliasShown,
        changes=True,
        conditional=True,
        statuses=(409,),
    ),
    Operation(
        id="deleteAlias",
        method="DELETE",
        path=_ALIAS,
        handler=delete_alias,
        summary="Remove an alias; its history stays.",
        changes=True,
        conditional=True,
    ),
)
