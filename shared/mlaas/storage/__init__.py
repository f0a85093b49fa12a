"""One interface to where models, indexes and data sets are kept: `local`, `s3` and `hugging_face_hub`.

`fetch` gives a file or folder that is ready to read, `publish` makes a folder an immutable version, all or nothing, and
moves the pointer `<path>/latest.json` to it. `put`, `names` and `remove` are for single files that nobody publishes: what
requests refer to, and drafts. A backend is a module with the functions of `Backend`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ..errors import InvalidRequest
from ..settings import Settings
from . import globs, hub, local, s3
from .downloads import check_target, copy_to
from .presigned import Link
from .progress import Progress

__all__ = [
    "BACKENDS",
    "Backend",
    "Link",
    "Progress",
    "dataset_exists",
    "download",
    "exists",
    "fetch",
    "fetch_dataset",
    "links",
    "names",
    "publish",
    "put",
    "remove",
]


class Backend(Protocol):
    """What a storage does. Errors: InvalidRequest, NotFound, and Unavailable where it is away."""

    def fetch(self, path: str, revision: str | None, settings: Settings, progress: Progress | None = None) -> Path:
        """A local file or folder."""

    def exists(self, path: str, revision: str | None, settings: Settings) -> bool:
        """Whether `fetch` would find something."""

    def fetch_matching(self, folder: str, pattern: str, settings: Settings, progress: Progress | None = None) -> Path:
        """A local folder that holds the files below `folder` which match, joined with `pattern`."""

    def exists_matching(self, folder: str, pattern: str, settings: Settings) -> bool:
        """Whether `fetch_matching` would find something."""

    def publish(self, folder: Path, path: str, version: str, settings: Settings, progress: Progress | None = None) -> str:
        """Store `folder` as `<path>/<version>` and give that path back."""

    def put(self, file: Path, path: str, settings: Settings, progress: Progress | None = None) -> None:
        """Store `file` at `path`, in place of what is there."""

    def names(self, path: str, settings: Settings) -> list[str]:
        """The names of the files directly in the folder."""

    def remove(self, path: str, settings: Settings) -> None:
        """Remove a file, or a folder and all below."""

    def links(self, path: str, revision: str | None, seconds: int, settings: Settings) -> list[Link]:
        """A link for each file."""


BACKENDS: dict[str, Backend] = {"local": local, "s3": s3, "hugging_face_hub": hub}


def fetch(path: str, storage_type: str, *, settings: Settings, revision: str | None = None, progress: Progress | None = None) -> Path:
    """A local file or folder that is ready to read: of `revision`, else of the version that `<path>/latest.json` names, else `path`.

    `progress` is called with the bytes done and the bytes in all while something is downloaded: not for what is local
    or in the cache. Raises InvalidRequest for a path that cannot be used, NotFound, and Unavailable where the storage is away.
    """
    return _backend(storage_type).fetch(path, revision, settings, progress)


def exists(path: str, storage_type: str, *, settings: Settings, revision: str | None = None) -> bool:
    """Whether `fetch` would find something; nothing is downloaded. Raises as `fetch` does, but for NotFound."""
    return _backend(storage_type).exists(path, revision, settings)


def fetch_dataset(path: str, storage_type: str, *, settings: Settings, progress: Progress | None = None) -> Path:
    """As `fetch`; for a path with wildcards (see `globs`) a local folder joined with a pattern, which `dataset_files.files` reads.

    Raises as `fetch` does, and NotFound, naming the pattern, where nothing matches.
    """
    glob = globs.cut(path)
    if glob is None:
        return fetch(path, storage_type, settings=settings, progress=progress)
    return _backend(storage_type).fetch_matching(*glob, settings, progress)


def dataset_exists(path: str, storage_type: str, *, settings: Settings) -> bool:
    """Whether `fetch_dataset` would find something; nothing is downloaded."""
    glob = globs.cut(path)
    if glob is None:
        return exists(path, storage_type, settings=settings)
    return _backend(storage_type).exists_matching(*glob, settings)


def download(
    path: str, storage_type: str, to: Path, *, settings: Settings, revision: str | None = None, progress: Progress | None = None
) -> None:
    """Copy what `fetch` gives, verified, into the folder `to`, which must be absent or empty; all of it, or nothing.

    `progress` is called with the bytes done and the bytes in all. Raises as `fetch` does, and InvalidRequest for such a `to`.
    """
    check_target(to)  # before anything is downloaded
    place = fetch(path, storage_type, settings=settings, revision=revision, progress=progress)
    copy_to(place, to, None if storage_type == "s3" else progress)  # S3 has told it while it downloaded


def publish(folder: Path, path: str, storage_type: str, version: str, *, settings: Settings, progress: Progress | None = None) -> str:
    """Publish the files of `folder` as the immutable `<path>/<version>`, move `<path>/latest.json` to it, give `<path>/<version>` back.

    A version that is published already stays as it is. `progress` is called with the bytes done and the bytes in all.
    """
    return _backend(storage_type).publish(folder, path, version, settings, progress)


def put(file: Path, path: str, storage_type: str, *, settings: Settings, progress: Progress | None = None) -> None:
    """Store one file at `path`, durably and in one step: a reader finds what was there before, or `file` whole.

    `progress` is called with the bytes done and the bytes in all. Raises InvalidRequest, NotFound for a bucket that does
    not exist, and Unavailable.
    """
    _backend(storage_type).put(file, path, settings, progress)


def names(path: str, storage_type: str, *, settings: Settings) -> list[str]:
    """The names of the files directly in the folder `path`, sorted; none where there is no such folder. Raises as `put` does."""
    return _backend(storage_type).names(path, settings)


def remove(path: str, storage_type: str, *, settings: Settings) -> None:
    """Remove the file or the folder `path` and all below it; nothing where there is none. Raises as `put` does."""
    _backend(storage_type).remove(path, settings)


def links(path: str, storage_type: str, *, settings: Settings, revision: str | None = None, seconds: int = 3600) -> list[Link]:
    """A link to each file of what `fetch` would give, with which anybody can download it for so long; S3 only.

    Raises as `fetch` does, and InvalidRequest for other storages and for a time that is not between a second and a week.
    """
    return _backend(storage_type).links(path, revision, seconds, settings)


def _backend(storage_type: str) -> Backend:
    if storage_type not in BACKENDS:
        raise InvalidRequest("the storage type is unknown", field="storage_type", remedy=f"Use one of {', '.join(BACKENDS)}.")
    return BACKENDS[storage_type]
