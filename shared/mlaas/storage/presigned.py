"""Links with which anybody can download a file from S3 for a while, without credentials of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..errors import InvalidRequest
from ..settings import Settings
from .s3_client import client, mapped_errors
from .s3_found import Remote, asked, nothing, resolve

__all__ = ["LONGEST", "Link", "links"]

LONGEST = 7 * 24 * 3600  # seconds: what the signature of version 4 allows


@dataclass(frozen=True, slots=True)
class Link:
    """A file, its size in bytes, its sha256 in hex where it is known, and the link: whoever has it can read the file until it expires."""

    name: str
    url: str
    size: int
    sha256: str | None = None


def links(path: str, revision: str | None, seconds: int, settings: Settings) -> list[Link]:
    """A link for each file of the version, of the folder or of the one object, by name.

    They name MLAAS_S3_PUBLIC_ENDPOINT where that is set. Credentials that end sooner (a session's) end the links as well.
    """
    if not 1 <= seconds <= LONGEST:
        raise InvalidRequest("a link is valid between a second and a week", field="seconds", remedy=f"Give 1 to {LONGEST}.")
    where, s3 = asked(path, revision), client(settings)
    with mapped_errors():
        found = resolve(s3, where, revision)
        if found is None:
            raise nothing(path, revision)
        signer = client(replace(settings, s3_endpoint=settings.s3_public_endpoint or settings.s3_endpoint))
        return [_link(s3, signer, found.where.bucket, name, remote, seconds) for name, remote in sorted(found.files.items())]


def _link(s3: Any, signer: Any, bucket: str, name: str, remote: Remote, seconds: int) -> Link:
    sha256 = remote.sha256 or s3.head_object(Bucket=bucket, Key=remote.key)["Metadata"].get("sha256")
    url = signer.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": remote.key}, ExpiresIn=seconds)
    return Link(name, url, remote.size, sha256)
