"""Storage on S3, read through the cache of downloads.

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
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import InvalidRequest, NotFound, Unavailable
from ..settings import Settings
from .cache import Cache
from .manifests import manifest_files, records, sha256_of
from .paths import POINTER, checked_version, is_safe_name, pointed_version
from .s3_client import PART, Location, client, is_absent, mapped_errors, read, transfer_config
from .s3_publish import ATTEMPT, COMPLETE, publish

__all__ = ["exists", "fetch", "publish"]

_IMMUTABLE = "version"


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


def fetch(path: str, revision: str | None, settings: Settings) -> Path:
    """A verified copy in the cache of downloads. A version that is there already costs no request beyond that for the pointer."""
    where = _asked(path, revision)
    cache = Cache(settings.downloads, settings.cache_bytes)
    if hit := cache.get(_source(settings, where), _IMMUTABLE):
        return hit
    s3 = client(settings)
    with mapped_errors():
        if revision is None and (pointed := _pointed(s3, where)):
            where = pointed
            if hit := cache.get(_source(settings, where), _IMMUTABLE):
                return hit
            found = _version(s3, where)
        else:
            found = _find(s3, where, revision)
        if found is None:
            raise _nothing(path, revision)
        size = sum(remote.size for remote in found.files.values())
        folder = cache.get_or_download(_source(settings, found.where), found.fingerprint, size, partial(_download, s3, found))
    return folder / next(iter(found.files)) if found.single else folder


def exists(path: str, revision: str | None, settings: Settings) -> bool:
    """Whether `fetch` would find something; costs up to four small requests."""
    where = _asked(path, revision)
    s3 = client(settings)
    try:
        with mapped_errors():
            if revision is None and (pointed := _pointed(s3, where)):
                return _version(s3, pointed) is not None
            return _find(s3, where, revision) is not None
    except NotFound:
        return False


def _asked(path: str, revision: str | None) -> Location:
    where = Location.of(path)
    return where if revision is None else where.child(checked_version(revision))


def _source(settings: Settings, where: Location) -> str:
    return json.dumps(["s3", settings.s3_endpoint, where.bucket, where.key])


def _nothing(path: str, revision: str | None) -> NotFound:
    as_version = f" as the complete version `{revision}`" if revision else ""
    return NotFound(f"nothing is stored under `{path}`{as_version}", field="path", remedy="Check the bucket, the key and the version.")


def _pointed(s3: Any, where: Location) -> Location | None:
    text = read(s3, where.child(POINTER))
    return None if text is None else where.child(pointed_version(text))


def _find(s3: Any, where: Location, revision: str | None) -> Found | None:
    version = _version(s3, where)
    if version or revision is not None:
        return version
    return _folder(s3, where) or _file(s3, where)


def _version(s3: Any, where: Location) -> Found | None:
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
    return Found(where, _IMMUTABLE, remotes)


def _folder(s3: Any, where: Location) -> Found | None:
    """A folder that somebody filled by other means: whatever is under the prefix now, unfinished versions aside."""
    files: dict[str, Remote] = {}
    prefix = f"{where.key}/"
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=where.bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            name = item["Key"].removeprefix(prefix)
            if name.endswith("/") or not name or ATTEMPT in f"/{name}":
                continue
            if not is_safe_name(name):
                raise InvalidRequest("the folder holds a key that cannot be a file's name", field="path", remedy="Rename the key.")
            files[name] = Remote(item["Key"], item["Size"], etag=item["ETag"])
    return Found(where, _fingerprint(files), files) if files else None


def _file(s3: Any, where: Location) -> Found | None:
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


def _fingerprint(files: Mapping[str, Remote]) -> str:
    listing = [[name, one.etag, one.size] for name, one in sorted(files.items())]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()[:32]


def _download(s3: Any, found: Found, staging: Path) -> None:
    """Fill `staging` with the files of `found` and verify them. Raises Unavailable where they are not what was announced."""
    from concurrent.futures import ThreadPoolExecutor

    for name in found.files:
        try:
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise InvalidRequest("the folder holds a key that is also a folder", field="path", remedy="Rename the key.") from None
    with ThreadPoolExecutor(max_workers=4) as pool:
        announced = list(pool.map(lambda item: _download_one(s3, found.where.bucket, item[1], staging / item[0]), found.files.items()))
    expected = {name: digest for name, digest in zip(found.files, announced, strict=True) if digest}
    sizes = {name: one.size for name, one in found.files.items()}
    for name, record in ({} if found.single else manifest_files(staging)).items():
        sizes[name] = record.size
        _agree(name, expected.setdefault(name, record.sha256) == record.sha256)
    for name, size in sizes.items():
        _agree(name, (staging / name).is_file() and (staging / name).stat().st_size == size)
    for name, digest in expected.items():
        _agree(name, sha256_of(staging / name) == digest)


def _agree(name: str, same: bool) -> None:
    if not same:
        raise Unavailable(f"`{name}` was not received as it was published", field="path", remedy="Try again; else publish it again.")


def _download_one(s3: Any, bucket: str, remote: Remote, target: Path) -> str | None:
    """Download an object; the sha256 that it should have, where it is known."""
    same = {"IfMatch": remote.etag} if remote.etag else {}
    if remote.size <= PART:
        answer = s3.get_object(Bucket=bucket, Key=remote.key, **same)
        target.write_bytes(answer["Body"].read())
        announced = answer["Metadata"].get("sha256")
    else:
        announced = s3.head_object(Bucket=bucket, Key=remote.key, **same)["Metadata"].get("sha256")
        s3.download_file(bucket, remote.key, str(target), Config=transfer_config())
    return remote.sha256 or announced
