"""What a path, a version and the name of a file in a folder may be, the same for every backend."""

from __future__ import annotations

import json
import re
from typing import Any

from ..errors import InvalidRequest

__all__ = ["POINTER", "checked_path", "checked_version", "is_safe_name", "pointed_version"]

POINTER = "latest.json"
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")


def is_safe_name(name: object) -> bool:
    """Whether `name` is a relative path that stays inside the folder it is joined to, spelled in its only way."""
    if not isinstance(name, str) or not 0 < len(name) <= 1024 or "\\" in name or not name.isprintable():
        return False
    return all(part not in {"", ".", ".."} and len(part.encode("utf-8", "replace")) <= 255 for part in name.split("/"))


def checked_path(path: str) -> str:
    """`path` without a trailing slash. Raises InvalidRequest for an absolute path, `..` and control characters."""
    stripped = path[:-1] if len(path) > 1 and path.endswith("/") else path
    if not is_safe_name(stripped):
        raise InvalidRequest(
            "the path is absolute, leaves its root or holds characters that a path may not have",
            field="path",
            remedy="Give a path relative to the storage's root, without `..`, `.`, `//`, backslashes and control characters.",
        )
    return stripped


def checked_version(version: str) -> str:
    """`version` if it can name a folder. Raises InvalidRequest."""
    if not _VERSION.fullmatch(version) or version == POINTER:
        raise InvalidRequest(
            "the version cannot be used",
            field="revision",
            remedy="Use letters, digits, `.`, `_`, `+` and `-`, beginning with a letter or a digit.",
        )
    return version


def pointed_version(text: bytes) -> str:
    """The version that the contents of a `latest.json` name. Raises InvalidRequest where they name none."""
    try:
        document: Any = json.loads(text)
        return checked_version(document["version"])
    except (ValueError, TypeError, KeyError, RecursionError, InvalidRequest):
        raise InvalidRequest(
            f"the `{POINTER}` of this path does not name a version",
            field="path",
            remedy="Publish a version again, or name one with `revision`.",
        ) from None
