"""One interface to where models, indexes and data sets are kept: `local`, `s3` and `hugging_face_hub`.

`fetch` gives a file or folder that is ready to read, `publish` makes a folder an immutable version, all or nothing, and
moves the pointer `<path>/latest.json` to it. A backend is a module with the three functions of `Backend`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ..errors import InvalidRequest
from ..settings import Settings
from . import hub, local, s3

__all__ = ["BACKENDS", "Backend", "exists", "fetch", "publish"]


class Backend(Protocol):
    """What a storage does. Errors: InvalidRequest, NotFound, and Unavailable where it is away."""

    def fetch(self, path: str, revision: str | None, settings: Settings) -> Path:
        """A local file or folder."""

    def exists(self, path: str, revision: str | None, settings: Settings) -> bool:
        """Whether `fetch` would find something."""

    def publish(self, folder: Path, path: str, version: str, settings: Settings, progress: Callable[[int, int], None] | None) -> str:
        """Store `folder` as `<path>/<version>` and give that path back."""


BACKENDS: dict[str, Backend] = {"local": local, "s3": s3, "hugging_face_hub": hub}


def fetch(path: str, storage_type: str, *, settings: Settings, revision: str | None = None) -> Path:
    """A local file or folder that is ready to read: of `revision`, else of the version that `<path>/latest.json` names, else `path`.

    Raises InvalidRequest for a path that cannot be used, NotFound, and Unavailable where the storage is away.
    """
    return _backend(storage_type).fetch(path, revision, settings)


def exists(path: str, storage_type: str, *, settings: Settings, revision: str | None = None) -> bool:
    """Whether `fetch` would find something; nothing is downloaded. Raises as `fetch` does, but for NotFound."""
    return _backend(storage_type).exists(path, revision, settings)


def publish(
    folder: Path, path: str, storage_type: str, version: str, *, settings: Settings, progress: Callable[[int, int], None] | None = None
) -> str:
    """Publish the files of `folder` as the immutable `<path>/<version>`, move `<path>/latest.json` to it, give `<path>/<version>` back.

    A version that is published already stays as it is. `progress` is called with the bytes done and the bytes in all.
    """
    return _backend(storage_type).publish(folder, path, version, settings, progress)


def _backend(storage_type: str) -> Backend:
    if storage_type not in BACKENDS:
        raise InvalidRequest("the storage type is unknown", field="storage_type", remedy=f"Use one of {', '.join(BACKENDS)}.")
    return BACKENDS[storage_type]
