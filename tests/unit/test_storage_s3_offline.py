from typing import Any

import pytest
from boto3.exceptions import RetriesExceededError
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ParamValidationError, ReadTimeoutError

from mlaas import storage
from mlaas.errors import InvalidRequest, MlaasError, NotFound, Unavailable
from mlaas.settings import Settings
from mlaas.storage import s3_found
from mlaas.storage.s3_client import Location, mapped_errors

SECRET = "http://secret.example/bucket/key"


def answer(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": SECRET}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (answer("NoSuchKey", 404), NotFound),
        (answer("NoSuchBucket", 404), NotFound),
        (answer("404", 404), NotFound),
        (answer("AccessDenied", 403), InvalidRequest),
        (answer("403", 403), InvalidRequest),
        (answer("InvalidBucketName", 400), InvalidRequest),
        (answer("InvalidAccessKeyId", 403), Unavailable),
        (answer("SignatureDoesNotMatch", 403), Unavailable),
        (answer("ExpiredToken", 400), Unavailable),
        (answer("PreconditionFailed", 412), Unavailable),
        (answer("InternalError", 500), Unavailable),
        (answer("SlowDown", 503), Unavailable),
        (answer("PermanentRedirect", 301), Unavailable),
        (EndpointConnectionError(endpoint_url=SECRET), Unavailable),
        (ReadTimeoutError(endpoint_url=SECRET), Unavailable),
        (NoCredentialsError(), Unavailable),
        (ParamValidationError(report=SECRET), InvalidRequest),
        (RetriesExceededError(ValueError(SECRET)), Unavailable),
    ],
)
def test_what_the_object_store_answers_becomes_an_error_without_its_text(raised: Exception, expected: type[MlaasError]) -> None:
    with pytest.raises(MlaasError) as caught, mapped_errors():
        raise raised
    assert type(caught.value) is expected
    assert caught.value.remedy
    assert "secret" not in f"{caught.value.detail} {caught.value.remedy}"


def test_a_defect_is_not_taken_for_the_object_store_s_fault() -> None:
    with pytest.raises(ZeroDivisionError), mapped_errors():
        raise ZeroDivisionError


@pytest.mark.parametrize("path", ["bucket", "s3://bucket", "s3://", "bucket/../x", "/bucket/x", "bucket//x", "bucket/a\0"])
def test_a_path_that_names_no_key_is_refused_before_any_request(path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        storage.fetch(path, "s3", settings=Settings(s3_endpoint="http://127.0.0.1:9"))
    assert caught.value.field == "path"


def test_bucket_and_key_are_read_with_and_without_the_scheme() -> None:
    assert Location.of("s3://b/k/l/") == Location.of("b/k/l") == Location("b", "k/l")


class Listing:
    """An S3 client whose bucket holds `keys`, whatever they are: real servers refuse or rewrite some of them."""

    def __init__(self, *keys: str) -> None:
        self._keys = keys

    def get_paginator(self, _operation: str) -> "Listing":
        return self

    def paginate(self, **_arguments: str) -> list[dict[str, Any]]:
        return [{"Contents": [{"Key": key, "Size": 1, "ETag": "e"} for key in self._keys]}]


@pytest.mark.parametrize("key", ["f/../x", "f//etc/passwd", "f/a/../../x", "f/a\\b", "f/./a", "f/a\0b", "f/a\nb", "f/" + "x" * 256])
def test_a_key_that_would_leave_the_folder_or_is_no_file_name_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequest, match="key"):
        s3_found.folder_at(Listing("f/good", key), Location("b", "f"))


def test_folder_markers_and_unfinished_attempts_are_no_files() -> None:
    found = s3_found.folder_at(Listing("f/", "f/sub/", "f/sub/a", "f/v1/.attempt-x/a", "f/.attempt-y/b"), Location("b", "f"))
    assert found is not None
    assert list(found.files) == ["sub/a"]
