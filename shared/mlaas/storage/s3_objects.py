"""Single objects on S3: put, listed, removed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ..errors import InvalidRequest
from ..settings import Settings
from .manifests import sha256_of
from .paths import POINTER, is_safe_name
from .progress import ByteCount, Progress
from .s3_client import COPIED_PART, Location, client, mapped_errors, transfer_config
from .s3_found import ATTEMPT, COMPLETE, version_at

__all__ = ["copy", "delete", "keys", "names", "put", "remove", "upload"]

_BATCH = 1000  # keys: what one request may delete


def put(file: Path, path: str, settings: Settings, progress: Progress | None = None) -> None:
    """Upload `file`, in parts if it is large; the object appears, or is replaced, when the last of them is there."""
    where = Location.of(path)
    if f"/{ATTEMPT}" in f"/{where.key}":
        raise InvalidRequest(f"a name in the path begins with `{ATTEMPT}`", field="path", remedy="Choose another name.")
    try:
        size, sha256 = file.stat().st_size, sha256_of(file)
    except OSError:
        raise InvalidRequest(f"`{file.name}` cannot be read", field="path", remedy="Give a file that exists.") from None
    s3 = client(settings)
    with mapped_errors():
        upload(s3, file, where, sha256, ByteCount(size, progress))


def names(path: str, settings: Settings) -> list[str]:
    """The names of the files directly in the folder, or in the version. Raises NotFound where there is no such bucket."""
    where = Location.of(path)
    s3 = client(settings)
    with mapped_errors():
        found = [name for key in keys(s3, where, Delimiter="/") if (name := key.removeprefix(f"{where.key}/"))]
        if COMPLETE in found and (version := version_at(s3, where)):
            return sorted(name for name in version.files if "/" not in name)
    if not all(is_safe_name(name) for name in found):
        raise InvalidRequest("the folder holds a key that cannot be a file's name", field="path", remedy="Rename the key.")
    return sorted(found)


def remove(path: str, settings: Settings) -> None:
    """Remove the object, and every one whose key begins with `path` and a slash."""
    where = Location.of(path)
    s3 = client(settings)
    with mapped_errors():
        delete(s3, where.bucket, chain(keys(s3, where), [where.key]))


def upload(s3: Any, file: Path, where: Location, sha256: str, count: ByteCount) -> None:
    """Store `file` at `where` with its sha256 in the metadata."""
    with file.open("rb") as content:
        extra = {"Metadata": {"sha256": sha256}}
        s3.upload_fileobj(content, where.bucket, where.key, ExtraArgs=extra, Callback=count, Config=transfer_config())


def copy(s3: Any, key: str, where: Location, sha256: str) -> bool:
    """Let the store copy the object `key` of the same bucket to `where`, with its sha256 in the metadata; whether it could."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import ClientError

    extra = {"Metadata": {"sha256": sha256}, "MetadataDirective": "REPLACE"}
    try:
        s3.copy({"Bucket": where.bucket, "Key": key}, where.bucket, where.key, ExtraArgs=extra, Config=transfer_config(COPIED_PART))
        size = s3.head_object(Bucket=where.bucket, Key=where.key)["ContentLength"]
        return bool(size == s3.head_object(Bucket=where.bucket, Key=key)["ContentLength"])
    except (ClientError, Boto3Error):  # it has gone, may not be read, or the store does not copy
        return False


def keys(s3: Any, where: Location, **more: str) -> Iterator[str]:
    """The keys in the folder `where` and below."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=where.bucket, Prefix=f"{where.key}/", **more):
        for item in page.get("Contents", []):
            yield item["Key"]


def delete(s3: Any, bucket: str, doomed: Iterable[str]) -> None:
    """Delete objects; in each batch markers and pointers go first, so that nothing is named that is gone already."""
    from botocore.exceptions import ClientError

    remaining = iter(doomed)
    while batch := list(islice(remaining, _BATCH)):
        ordered = sorted(batch, key=lambda key: key.rpartition("/")[2] not in {COMPLETE, POINTER})
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in ordered], "Quiet": True})
        for error in answer.get("Errors", []):
            raise ClientError({"Error": error}, "DeleteObjects")
