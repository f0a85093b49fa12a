"""Storage on S3, read through the cache of downloads; `s3_version` says how versions are laid out."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import InvalidRequest, NotFound, Unavailable
from ..settings import Settings
from .cache import Cache
from .globs import no_match
from .manifests import manifest_files, sha256_of
from .presigned import links
from .progress import ByteCount, Progress
from .s3_client import PART, Location, client, mapped_errors, transfer_config
from .s3_found import IMMUTABLE, Found, Remote, asked, find, matching, nothing, pointed, resolve, version_at
from .s3_objects import names, put, remove
from .s3_publish import publish
from .staged import staged, version_of

__all__ = ["exists", "exists_matching", "fetch", "fetch_matching", "links", "names", "publish", "put", "remove"]

LINKED_BYTES = 1024**2  # what is smaller is received in the time that looking for it takes


def fetch(path: str, revision: str | None, settings: Settings, progress: Progress | None = None) -> Path:
    """A verified copy, staged or in the cache. A version that is there already costs no request beyond that for the pointer."""
    where = asked(path, revision)
    cache = Cache(settings.downloads, settings.cache_bytes)
    if hit := _here(settings, cache, where):
        return hit
    s3 = client(settings)
    with mapped_errors():
        if revision is None and (version := pointed(s3, where)):
            where = version
            if hit := _here(settings, cache, where):
                return hit
            found = version_at(s3, where)
        else:
            found = find(s3, where, revision)
        if found is None:
            raise nothing(path, revision)
        download = partial(_download, s3, found, ByteCount(found.size, progress), cache)
        folder = cache.get_or_download(_source(settings, found.where), found.fingerprint, found.size, download)
    return folder / next(iter(found.files)) if found.single else folder


def exists(path: str, revision: str | None, settings: Settings) -> bool:
    """Whether `fetch` would find something; costs up to five small requests."""
    where = asked(path, revision)
    s3 = client(settings)
    try:
        with mapped_errors():
            return resolve(s3, where, revision) is not None
    except NotFound:
        return False


def fetch_matching(folder: str, pattern: str, settings: Settings, progress: Progress | None = None) -> Path:
    """The pattern below a folder of the cache that holds the objects which match, verified. Nothing else is downloaded."""
    s3 = client(settings)
    with mapped_errors():
        found = matching(s3, _folder(folder), pattern)
        if found is None:
            raise no_match(folder, pattern)
        source = json.dumps(["s3", settings.s3_endpoint, found.where.bucket, found.where.key, pattern])
        download = partial(_download, s3, found, ByteCount(found.size, progress), cache := Cache(settings.downloads, settings.cache_bytes))
        return cache.get_or_download(source, found.fingerprint, found.size, download) / pattern


def exists_matching(folder: str, pattern: str, settings: Settings) -> bool:
    """Whether `fetch_matching` would find something."""
    s3 = client(settings)
    try:
        with mapped_errors():
            return matching(s3, _folder(folder), pattern) is not None
    except NotFound:
        return False


def _folder(path: str) -> Location:
    """The location of a folder, or with an empty key of a bucket."""
    bucket, _, key = path.removeprefix("s3://").partition("/")
    if not bucket:
        raise InvalidRequest("the bucket's name has a wildcard", field="path", remedy="Give `bucket/folder/*.csv`.")
    return Location.of(path) if key else Location(bucket, "")


def _here(settings: Settings, cache: Cache, version: Location) -> Path | None:
    return staged(version_of(version.key), settings) or cache.get(_source(settings, version), IMMUTABLE)


def _source(settings: Settings, where: Location) -> str:
    return json.dumps(["s3", settings.s3_endpoint, where.bucket, where.key])


def _download(s3: Any, found: Found, count: ByteCount, cache: Cache, staging: Path) -> None:
    """Fill `staging` with the files of `found` and verify them. Raises Unavailable where they are not what was announced."""
    from concurrent.futures import ThreadPoolExecutor

    for name in found.files:
        try:
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise InvalidRequest("the folder holds a key that is also a folder", field="path", remedy="Rename the key.") from None
    here = cache.files() if any(_is_large(remote) for remote in found.files.values()) else {}

    def one(name: str, remote: Remote) -> str | None:
        if _is_large(remote) and _linked(here.get(remote.sha256 or ""), staging / name, remote):
            count(remote.size)
            return remote.sha256
        return _download_one(s3, found.where.bucket, remote, staging / name, count)

    with ThreadPoolExecutor(max_workers=4) as pool:
        tasks = pool.map(one, found.files.keys(), found.files.values())
        try:
            announced = list(tasks)
        except BaseException:  # a signal to stop among them: it must not wait for the rest of a large download
            count.stop()
            raise
    expected = {name: digest for name, digest in zip(found.files, announced, strict=True) if digest}
    sizes = {name: one.size for name, one in found.files.items()}
    for name, record in ({} if found.single else manifest_files(staging)).items():
        sizes[name] = record.size
        _agree(name, expected.setdefault(name, record.sha256) == record.sha256)
    for name, size in sizes.items():
        _agree(name, (staging / name).is_file() and (staging / name).stat().st_size == size)
    for name, digest in expected.items():
        _agree(name, sha256_of(staging / name) == digest)


def _is_large(remote: Remote) -> bool:
    """Whether it is worth looking for among the downloads that are here: as another version of an index may have it."""
    return remote.sha256 is not None and remote.size >= LINKED_BYTES


def _linked(source: Path | None, target: Path, remote: Remote) -> bool:
    """Give a file of another download a second name, if it still is what it was; whether that could be."""
    if source is None:
        return False
    try:
        os.link(source, target)
        same = target.stat().st_size == remote.size and sha256_of(target) == remote.sha256
    except OSError:
        return False
    if not same:
        target.unlink()
    return same


def _agree(name: str, same: bool) -> None:
    if not same:
        raise Unavailable(f"`{name}` was not received as it was published", field="path", remedy="Try again; else publish it again.")


def _download_one(s3: Any, bucket: str, remote: Remote, target: Path, count: ByteCount) -> str | None:
    """Download an object; the sha256 that it should have, where it is known."""
    same = {"IfMatch": remote.etag} if remote.etag else {}
    if remote.size <= PART:
        answer = s3.get_object(Bucket=bucket, Key=remote.key, **same)
        count(target.write_bytes(answer["Body"].read()))
        announced = answer["Metadata"].get("sha256")
    else:
        announced = s3.head_object(Bucket=bucket, Key=remote.key, **same)["Metadata"].get("sha256")
        s3.download_file(bucket, remote.key, str(target), Callback=count, Config=transfer_config())
    return remote.sha256 or announced
