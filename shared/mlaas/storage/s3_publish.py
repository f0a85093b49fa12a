"""Publishing a version to S3: upload an attempt, make it the version if there is none yet, move the pointer."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InvalidRequest, Unavailable
from ..settings import Settings
from .manifests import MANIFEST, FileRecord, describe, files_of, table
from .paths import POINTER, checked_version
from .progress import ByteCount, Progress
from .s3_client import Location, client, mapped_errors, read
from .s3_found import ATTEMPT, COMPLETE, Remote, pointed, version_at
from .s3_objects import copy, upload

__all__ = ["publish"]

COPIED_BYTES = 1024**2  # what is smaller is sent in the time that a copy takes

log = logging.getLogger("mlaas")


def publish(folder: Path, path: str, version: str, settings: Settings, progress: Progress | None = None) -> str:
    """Upload the files of `folder`, mark them complete unless the version is there already, and move the pointer."""
    parent = Location.of(path)
    where = parent.child(checked_version(version))
    names = files_of(folder)
    if not names:
        raise InvalidRequest("there is nothing to publish: the folder holds no file", field="path")
    s3 = client(settings)
    with mapped_errors():
        if read(s3, where.child(COMPLETE)) is None:
            _settle(s3, folder, names, where, progress)
        _put(s3, parent.child(POINTER), {"version": version})
    return f"{parent.bucket}/{where.key}"


def _settle(s3: Any, folder: Path, names: list[str], where: Location, progress: Progress | None) -> None:
    """Make this attempt the version, or remove it again if another attempt was first."""
    attempt = os.urandom(8).hex()
    uploaded = False
    try:
        files = describe(folder, names)
        _upload(s3, folder, files, where.child(f"{ATTEMPT}{attempt}"), progress, _before(s3, where))
        uploaded = True
    finally:
        if not uploaded:
            _remove(s3, where.child(f"{ATTEMPT}{attempt}"))
    marker = {"attempt": attempt, "files": table(files)}
    if _put_if_none(s3, where.child(COMPLETE), marker) and _put_if_none(s3, where.child(COMPLETE), marker):
        # The store took the second as well, so it ignores the condition: of several publishers the last one wins there.
        # Each marker still names one attempt's files only, as long as nobody removes an attempt.
        log.warning("storage.conditions_ignored", extra={"fields": {"bucket": where.bucket}})
        return
    # Only now that a winner is known: an attempt whose conditional put got no answer may be the version all the same.
    _remove(s3, where.child(ATTEMPT), but=where.child(f"{ATTEMPT}{_winner(s3, where)}"))


def _before(s3: Any, where: Location) -> Mapping[str, Remote]:
    """The files of the latest version beside `where`; none where that cannot be read."""
    try:
        latest = pointed(s3, Location(where.bucket, where.key.rpartition("/")[0]))
        version = version_at(s3, latest) if latest else None
    except InvalidRequest:
        return {}
    return version.files if version else {}


def _upload(
    s3: Any, folder: Path, files: dict[str, FileRecord], where: Location, progress: Progress | None, before: Mapping[str, Remote]
) -> None:
    """The manifest goes last. What the version `before` has alike is copied within the store instead of sent again."""
    count = ByteCount(sum(record.size for record in files.values()), progress)
    for name in sorted(files, key=lambda name: (name == MANIFEST, name)):
        size, sha256 = files[name].size, files[name].sha256
        same = before.get(name)
        if same and (same.size, same.sha256) == (size, sha256) and size >= COPIED_BYTES and copy(s3, same.key, where.child(name), sha256):
            count(size)
        else:
            upload(s3, folder / name, where.child(name), sha256, count)


def _put(s3: Any, where: Location, document: dict[str, Any], **condition: str) -> None:
    s3.put_object(Bucket=where.bucket, Key=where.key, Body=json.dumps(document).encode(), ContentType="application/json", **condition)


def _put_if_none(s3: Any, where: Location, document: dict[str, Any]) -> bool:
    """Put `document` unless there is something; whether it was put."""
    from botocore.exceptions import ClientError

    try:
        _put(s3, where, document, IfNoneMatch="*")
    except ClientError as error:
        # 412: another attempt was first. 409: one is being decided at this moment.
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if status not in {409, 412}:
            raise
        if read(s3, where) is None:
            raise Unavailable("the version is being published by someone else", field="path", remedy="Try again.") from None
        return False
    return True


def _winner(s3: Any, where: Location) -> str:
    marker = json.loads(read(s3, where.child(COMPLETE)) or b"{}")
    return str(marker.get("attempt", ""))


def _remove(s3: Any, where: Location, *, but: Location | None = None) -> None:
    """Remove what begins with `where`, except the folder `but`. Best effort: what stays is never read."""
    try:
        with mapped_errors():
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket=where.bucket, Prefix=where.key):
                for item in page.get("Contents", []):
                    if but is None or not item["Key"].startswith(f"{but.key}/"):
                        s3.delete_object(Bucket=where.bucket, Key=item["Key"])
    except (InvalidRequest, Unavailable):
        return
