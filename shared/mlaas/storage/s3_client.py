"""The S3 client, and what its errors become. botocore is imported where it is used: many processes never need it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..errors import InvalidRequest, MlaasError, NotFound, Unavailable
from ..settings import Settings
from .paths import checked_path

__all__ = ["COPIED_PART", "Location", "client", "forget", "is_absent", "mapped_errors", "read", "transfer_config"]

COPIED_PART = 256 * 1024**2  # bytes of an object that the store copies within itself: nothing is sent, but it has to answer in time
PART = 8 * 1024**2  # bytes: a larger object is transferred in parts of this size, several at once
_ABSENT = {"404", "NoSuchKey", "NoSuchBucket", "NotFound"}
_CREDENTIALS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "InvalidClientTokenId",
    "RequestTimeTooSkewed",
}


@dataclass(frozen=True, slots=True)
class Location:
    """A key, or the prefix of a folder without its last slash."""

    bucket: str
    key: str

    @classmethod
    def of(cls, path: str) -> Location:
        """The location that `bucket/key...` or `s3://bucket/key...` names. Raises InvalidRequest."""
        bucket, _, key = checked_path(path.removeprefix("s3://")).partition("/")
        if not key:
            raise InvalidRequest("the path names a bucket only", field="path", remedy="Give `bucket/key` or `s3://bucket/key`.")
        return cls(bucket, key)

    def child(self, name: str) -> Location:
        """The location of `name` in this folder."""
        return Location(self.bucket, f"{self.key}/{name}")


def client(settings: Settings) -> Any:
    """A client of the configured endpoint, shared by the threads of this process."""
    with mapped_errors():
        return _client(settings.s3_endpoint, os.getpid())


def forget() -> None:
    """Let the next client read the credentials anew."""
    _client.cache_clear()


@lru_cache(maxsize=4)
def _client(endpoint: str | None, _process: int) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        signature_version="s3v4",
        # Other servers than AWS seldom have a host name for each bucket, nor know AWS's additional checksums.
        s3={"addressing_style": "path"} if endpoint else None,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"max_attempts": 3, "mode": "standard"},
        # Three tries of these bound how long a half-open connection can hold a request: 45 s, and the waits between.
        connect_timeout=5,
        read_timeout=15,
        max_pool_connections=32,
    )
    return boto3.session.Session().client("s3", endpoint_url=endpoint, config=config)


def transfer_config(part: int = PART) -> Any:
    """How large objects are transferred: in parts of so many bytes."""
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(multipart_threshold=part, multipart_chunksize=part, max_concurrency=4)


def read(s3: Any, where: Location) -> bytes | None:
    """The content of a small object, None where there is none. Raises what botocore raises."""
    from botocore.exceptions import ClientError

    try:
        content: bytes = s3.get_object(Bucket=where.bucket, Key=where.key)["Body"].read()
    except ClientError as error:
        if is_absent(error):
            return None
        raise
    return content


def is_absent(error: Any) -> bool:
    """Whether a ClientError says that there is no such key."""
    return _code(error) in _ABSENT - {"NoSuchBucket"}


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Turn what boto3 raises into the project's errors, without its text: that names endpoints and keys."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _of_answer(_code(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) from None
    except (BotoCoreError, Boto3Error) as error:
        raise _of_no_answer(type(error).__name__) from None


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _of_answer(code: str, status: int) -> MlaasError:
    """The error for an answer of the object store with `code`, or with `status` where the code says nothing."""
    if code in _ABSENT:
        return NotFound("there is no such object, folder or bucket", field="path", remedy="Check the bucket and the key.")
    if code in _CREDENTIALS:
        return Unavailable("the object store refuses the platform's credentials", remedy="The operator checks the AWS_ variables or files.")
    if code == "AccessDenied" or status == 403:
        return InvalidRequest(
            "the platform may not use this path",
            field="path",
            remedy="Choose another path, or have the bucket's owner allow s3:ListBucket, s3:GetObject and s3:PutObject.",
        )
    if code == "PreconditionFailed" or status == 412:
        return Unavailable("the object changed while it was read", field="path", remedy="Try again.")
    if status >= 500 or status in {301, 307, 409, 429} or code in {"SlowDown", "RequestTimeout"}:
        return Unavailable("the object store does not answer as it should", remedy="Try again later.")
    return InvalidRequest("the object store refuses this path", field="path", remedy="Check the bucket's name and the key.")


def _of_no_answer(name: str) -> MlaasError:
    """The error for a failure on this side, by the class name of the exception."""
    if name in {"ParamValidationError", "InvalidBucketNameError", "UnsupportedS3ArnError"}:
        return InvalidRequest("the path cannot name an object", field="path", remedy="Check the bucket's name.")
    if "Credentials" in name or "Token" in name or "Profile" in name:
        return Unavailable("the platform has no credentials for the object store", remedy="The operator sets the AWS_ variables or files.")
    return Unavailable("the object store cannot be reached", remedy="Try again; the operator checks MLAAS_S3_ENDPOINT.")
