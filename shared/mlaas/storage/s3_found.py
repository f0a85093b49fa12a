"""What a path on S3 stands for: the files of a version, of a folder, or one file.

A version is the folder `<path>/<version>/`. Its marker `.complete` lists the files and names the attempt they belong to:

    <path>/latest.json                            {"version": "<version>"}
    <path>/<version>/.complete                    {"attempt": "<id>", "files": {name: {"size", "sha256"}}}
    <path>/<version>/.attempt-<id>/<name>         a file, its sha256 in its metadata

The marker is written last and only if there is none. So two publishers of one version cannot mix their files, one of
them wins, and a version without its marker does not exist.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidRequest, NotFound
from .globs import matches, start_of
from .manifests import MANIFEST, records
from .paths import POINTER, checked_version, is_safe_name, pointed_version
from .s3_client import Location, is_absent, read

__all__ = [
    "ATTEMPT",
    "COMPLETE",
    "IMMUTABLE",
    "Found",
    "Remote",
    "asked",
    "find",
    "folder_at",
    "matching",
    "nothing",
    "pointed",
    "resolve",
    "version_at",
]

COMPLETE = ".complete"
ATTEMPT = ".attempt-"
IMMUTABLE = "version"


@dataclass(frozen=True, slots=True)
class Remote:
    """An object: its key, its size in bytes, and its ETag or sha256 where they are known."""

    key: str
    size: int
    etag: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What a path stands for now: the files, by their names in the folder; `single` where it is one file and no folder."""

    where: Location
    fingerprint: str
    files: Mapping[str, Remote]
    single: bool = False

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(remote.size for remote in self.files.values())


def asked(path: str, revision: str | None) -> Location:
    """The location that a request names. Raises InvalidRequest."""
    where = Location.of(path)
    return where if revision is None else where.child(checked_version(revision))


def nothing(path: str, revision: str | None) -> NotFound:
    """The error that says so."""
    as_version = f" as the complete version `{revision}`" if revision else ""
    return NotFound(f"nothing is stored under `{path}`{as_version}", field="path", remedy="Check the bucket, the key and the version.")


def resolve(s3: Any, where: Location, revision: str | None) -> Found | None:
    """What `where` stands for: the version that its pointer names, unless `revision` was asked for, else what is there itself."""
    if revision is None and (version := pointed(s3, where)):
        return version_at(s3, version)
    return find(s3, where, revision)


def pointed(s3: Any, where: Location) -> Location | None:
    """The version that the folder's pointer names, None where it has no pointer."""
    text = read(s3, where.child(POINTER))
    return None if text is None else where.child(pointed_version(text))


def version_at(s3: Any, where: Location) -> Found | None:
    """The version whose folder is `where`, None where there is no complete one."""
    text = read(s3, where.child(COMPLETE))
    if text is None:
        return None
    try:
        marker = json.loads(text)
        attempt, files = marker["attempt"], records(marker["files"])
    except (ValueError, TypeError, KeyError, RecursionError):
        attempt, files = None, {}
    if not is_safe_name(attempt) or "/" in attempt:
        raise InvalidRequest("the version's marker is malformed", field="path", remedy="Publish another version.")
    remotes = {name: Remote(f"{where.key}/{ATTEMPT}{attempt}/{name}", one.size, sha256=one.sha256) for name, one in files.items()}
    return Found(where, IMMUTABLE, remotes)


def find(s3: Any, where: Location, revision: str | None) -> Found | None:
    """What is at `where` itself: a version, else, unless it must be one (`revision`), a folder or a file."""
    version = version_at(s3, where)
    if version or revision is not None:
        return version
    return folder_at(s3, where) or _file_at(s3, where) or _file_of_version(s3, where)


def matching(s3: Any, where: Location, pattern: str) -> Found | None:
    """The files below `where`, a folder, a version or with an empty key the bucket, that `pattern` stands for."""
    found = None
    if where.key:
        version = pointed(s3, where)
        found = version_at(s3, version or where)
    found = found or folder_at(s3, where, start_of(pattern))
    # A manifest is of all files of its folder, and no data.
    files = {name: one for name, one in found.files.items() if matches(name, pattern) and name != MANIFEST} if found else {}
    return Found(where, _fingerprint(files), files) if files else None


def folder_at(s3: Any, where: Location, start: str = "") -> Found | None:
    """A folder that somebody filled by other means: whatever is under the prefix now and begins with `start`, unfinished versions aside."""
    files: dict[str, Remote] = {}
    prefix = f"{where.key}/" if where.key else ""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=where.bucket, Prefix=prefix + start):
        for item in page.get("Contents", []):
            name = item["Key"].removeprefix(prefix)
            if name.endswith("/") or not name or ATTEMPT in f"/{name}":
                continue
            if not is_safe_name(name):
                raise InvalidRequest("the folder holds a key that cannot be a file's name", field="path", remedy="Rename the key.")
            files[name] = Remote(item["Key"], item["Size"], etag=item["ETag"])
    return Found(where, _fingerprint(files), files) if files else None


def _file_at(s3: Any, where: Location) -> Found | None:
    """The one object at `where`."""
    from botocore.exceptions import ClientError

    try:
        head = s3.head_object(Bucket=where.bucket, Key=where.key)
    except ClientError as error:
        if is_absent(error):
            return None
        raise
    remote = Remote(where.key, head["ContentLength"], etag=head["ETag"], sha256=head["Metadata"].get("sha256"))
    files = {where.key.rpartition("/")[2]: remote}
    return Found(where, _fingerprint(files), files, single=True)


def _file_of_version(s3: Any, where: Location) -> Found | None:
    """The file `where` of the version whose folder it is in: a reader need not know that its object lies in an attempt."""
    folder, _, name = where.key.rpartition("/")
    version = version_at(s3, Location(where.bucket, folder)) if folder else None
    if version is None or name not in version.files:
        return None
    remote = version.files[name]
    return Found(where, remote.sha256 or IMMUTABLE, {name: remote}, single=True)


def _fingerprint(files: Mapping[str, Remote]) -> str:
    listing = [[name, one.etag or one.sha256, one.size] for name, one in sorted(files.items())]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()[:32]
