"""Storage on the file system, under one root: read in place, published by a rename."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

from ..errors import InvalidRequest, NotFound
from ..settings import Settings
from .globs import matches, no_match
from .local_files import copy_files, names, put, remove, share_files
from .local_root import STAGING, inside, root_of, writing
from .manifests import files_of, sync_folder, write_durably
from .paths import POINTER, checked_path, checked_version, pointed_version
from .presigned import Link
from .progress import Progress

__all__ = ["exists", "exists_matching", "fetch", "fetch_matching", "links", "names", "publish", "put", "remove"]


def fetch(path: str, revision: str | None, settings: Settings, progress: Progress | None = None) -> Path:
    """The file or folder itself, no copy. Raises InvalidRequest for a path that leaves the root, NotFound."""
    root = root_of(settings)
    path = checked_path(path)
    place = _current(root, path) if revision is None else inside(root, f"{path}/{checked_version(revision)}")
    if not place.exists() or any(part.startswith(STAGING) for part in place.parts):
        raise NotFound(
            f"nothing is stored under `{path}`" + (f" as version `{revision}`" if revision else ""),
            field="path",
            remedy="Give a path relative to the root of local storage (MLAAS_ROOT).",
        )
    _refuse_leaving_links(place, root)
    return place


def exists(path: str, revision: str | None, settings: Settings) -> bool:
    """Whether `fetch` would find something. Raises InvalidRequest for a path that leaves the root."""
    try:
        fetch(path, revision, settings)
    except NotFound:
        return False
    return True


def fetch_matching(folder: str, pattern: str, settings: Settings, progress: Progress | None = None) -> Path:
    """The pattern below the folder itself, no copy. Raises InvalidRequest where a match leaves the root, NotFound where there is none."""
    root = root_of(settings)
    home = _current(root, checked_path(folder)) if folder else root
    found = [file for file in home.glob(pattern) if matches(file.relative_to(home).as_posix(), pattern) and file.is_file()]
    if not found:
        raise no_match(folder, pattern)
    if any(root not in Path(os.path.realpath(file)).parents for file in found):
        raise InvalidRequest("a file that matches is a link that leaves the root of local storage", field="path", remedy="Copy the file.")
    return home / pattern


def exists_matching(folder: str, pattern: str, settings: Settings) -> bool:
    """Whether `fetch_matching` would find something."""
    try:
        fetch_matching(folder, pattern, settings)
    except NotFound:
        return False
    return True


def publish(folder: Path, path: str, version: str, settings: Settings, progress: Progress | None = None) -> str:
    """Copy `folder` to a staging sibling, rename it to `<path>/<version>` and move the pointer."""
    root = root_of(settings)
    parent = inside(root, path := checked_path(path))
    place = parent / checked_version(version)
    files = files_of(folder)
    if not files:
        raise InvalidRequest("there is nothing to publish: the folder holds no file", field="path")
    with writing():
        parent.mkdir(parents=True, exist_ok=True)
        if not place.is_dir():
            _copy_and_rename(folder, files, place, progress)
        write_durably(parent / POINTER, f'{{"version": "{version}"}}\n'.encode())
    return f"{path}/{version}"


def links(path: str, revision: str | None, seconds: int, settings: Settings) -> list[Link]:
    """Raises InvalidRequest: nobody serves these files."""
    raise InvalidRequest(
        "there are links to what is on S3 only", field="storage_type", remedy="Copy the files with `mlaas catalog download NAME`."
    )


def _current(root: Path, path: str) -> Path:
    """The version that the folder's pointer names, else what is at `path` itself."""
    place = inside(root, path)
    if (place / POINTER).is_file():
        return inside(root, f"{path}/{pointed_version((place / POINTER).read_bytes())}")
    return place


def _refuse_leaving_links(place: Path, root: Path) -> None:
    for parent, folders, files in os.walk(place):
        for name in [*folders, *files]:
            entry = Path(parent, name)
            if entry.is_symlink() and root not in Path(os.path.realpath(entry)).parents:
                raise InvalidRequest(
                    "the folder holds a link that leaves the root of local storage", field="path", remedy="Replace links by copies."
                )


def _copy_and_rename(folder: Path, files: list[str], place: Path, progress: Progress | None) -> None:
    """A locked staging folder is one at work: those that nobody holds were left by publishers that were killed."""
    _sweep(place.parent)
    staging = place.parent / f"{STAGING}{os.urandom(8).hex()}"
    with (place.parent / f"{staging.name}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            staging.mkdir()
            shared = share_files(_latest(place.parent), folder, staging)
            copy_files(folder, [name for name in files if name not in shared], staging, progress)
            try:
                os.rename(staging, place)
            except OSError:
                if not place.is_dir():
                    raise
                # another publisher of this version was first: the version is theirs
            sync_folder(place.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            Path(lock.name).unlink(missing_ok=True)


def _latest(parent: Path) -> Path | None:
    """The folder of the latest version under `parent`."""
    try:
        return parent / pointed_version((parent / POINTER).read_bytes())
    except (OSError, InvalidRequest):
        return None


def _sweep(parent: Path) -> None:
    for litter in parent.glob(f"{STAGING}*.lock"):
        try:
            with litter.open("rb+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(litter.with_suffix(""), ignore_errors=True)
                litter.unlink(missing_ok=True)
        except (BlockingIOError, FileNotFoundError):
            continue  # its publisher is at work, or has just finished
