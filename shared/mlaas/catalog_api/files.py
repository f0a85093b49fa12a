"""The files of a version: their table, and each of them, whole or in part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flask
from werkzeug.exceptions import RequestedRangeNotSatisfiable

from .. import storage
from ..errors import NotFound, OutOfRange
from ..settings import Settings
from ..storage import manifests

__all__ = ["records", "send"]


def records(body: Mapping[str, Any], settings: Settings) -> dict[str, dict[str, Any]]:
    """Size and sha256 (None where nobody knows it) of each file by name. Raises as `storage.fetch` does."""
    if kept := body.get("files"):
        return dict(kept)
    if body["storage_type"] == "s3":
        found = storage.links(body["path"], "s3", settings=settings, seconds=1)
        return {one.name: {"size": one.size, "sha256": one.sha256} for one in found}
    place = storage.fetch(body["path"], body["storage_type"], settings=settings)
    if place.is_file():
        return manifests.table(manifests.describe(place.parent, [place.name]))
    names = manifests.files_of(place)
    known = {name: record for name, record in manifests.manifest_files(place).items() if name in names}
    return manifests.table({**manifests.describe(place, (name for name in names if name not in known)), **known})


def send(body: Mapping[str, Any], file: str, settings: Settings) -> flask.Response:
    """A file of a version: from S3 by a link that is good for an hour, else itself, or the part that the request's `Range` names."""
    if body["storage_type"] == "s3":
        link = next((one for one in storage.links(body["path"], "s3", settings=settings) if one.name == file), None)
        if link is None:
            raise _nothing(file)
        return flask.Response(status=307, headers={"Location": link.url})
    known = records(body, settings).get(file)
    place = storage.fetch(body["path"], body["storage_type"], settings=settings)
    source = place if place.is_file() else place / file
    if known is None or not source.is_file():
        raise _nothing(file)
    name = file.rpartition("/")[2]
    etag = known["sha256"] or False
    try:
        return flask.send_file(source, "application/octet-stream", as_attachment=True, download_name=name, etag=etag)
    except RequestedRangeNotSatisfiable:
        raise OutOfRange(f"the file has {known['size']} bytes", field="Range", remedy="Ask for a part that it has.") from None


def _nothing(file: str) -> NotFound:
    return NotFound("this version has no such file", field="file", remedy="The `files` of the version list what it has.")
