"""Single files in local storage: put, listed, removed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import InvalidRequest, Unavailable
from ..settings import Settings
from .local_root import STAGING, inside, root_of, writing
from .manifests import manifest_files, size_of, sync_folder
from .paths import checked_path
from .progress import Progress

__all__ = ["copy_files", "names", "put", "remove", "share_files"]

_CHUNK = 1 << 20


def put(file: Path, path: str, settings: Settings, progress: Progress | None = None) -> None:
    """Copy `file` beside its place, then rename it there: whoever reads sees the old file or the new one, whole."""
    root = root_of(settings)
    place = inside(root, path := checked_path(path))
    if any(part.startswith(STAGING) for part in path.split("/")):
        raise InvalidRequest(f"a name in the path begins with `{STAGING}`", field="path", remedy="Choose another name.")
    if place.is_dir():
        raise InvalidRequest("the path names a folder", field="path", remedy="Give the path of a file.")
    try:
        source = file.open("rb")
    except OSError:
        raise InvalidRequest(f"`{file.name}` cannot be read", field="path", remedy="Give a file that exists.") from None
    with source, writing():
        _make_folders(root, place.parent)
        _sweep(place.parent)
        with _temporary(place.parent) as (name, copy):
            _copy_file(source, copy, progress, os.fstat(source.fileno()).st_size)
            os.replace(name, place)
        sync_folder(place.parent)


def names(path: str, settings: Settings) -> list[str]:
    """The names of the files directly in the folder; a link counts as what it leads to, if that is below the root."""
    root = root_of(settings)
    folder = inside(root, checked_path(path))
    try:
        entries = [entry for entry in os.scandir(folder) if entry.is_file() and not entry.name.startswith(STAGING)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        raise Unavailable("local storage cannot be read", remedy="See that the folder of MLAAS_ROOT is readable.") from None
    return sorted(entry.name for entry in entries if not entry.is_symlink() or root in Path(os.path.realpath(entry.path)).parents)


def remove(path: str, settings: Settings) -> None:
    """Remove the file, or the folder with all below. Of a link, the link."""
    root = root_of(settings)
    parent, _, name = (path := checked_path(path)).rpartition("/")
    place = (inside(root, parent) if parent else root) / name  # the last part is not followed
    try:
        is_folder = stat.S_ISDIR(place.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return
    with writing():
        if is_folder:
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
        sync_folder(place.parent)


def _copy_file(source: BinaryIO, target: BinaryIO, progress: Progress | None, total: int, done: int = 0) -> int:
    """Copy to the end and make it durable; the bytes done by then, `done` of them before."""
    while chunk := source.read(_CHUNK):
        target.write(chunk)
        done += len(chunk)
        if progress:
            progress(done, max(total, done))
    target.flush()
    os.fsync(target.fileno())
    return done


def copy_files(folder: Path, files: list[str], target: Path, progress: Progress | None) -> None:
    """Copy `files` of `folder` into the folder `target`, durably."""
    total = size_of(folder, files)
    done = 0
    for name in files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("rb") as source, (target / name).open("wb") as copy:
            done = _copy_file(source, copy, progress, total, done)
    for parent, _, _ in os.walk(target):
        sync_folder(Path(parent))


def share_files(before: Path | None, folder: Path, target: Path) -> set[str]:
    """Link into `target` the files that `folder` and the version `before` have alike, as their manifests say; their names.

    A version's files never change, so several versions can share them. Where links cannot be, nothing is shared.
    """
    shared: set[str] = set()
    old = manifest_files(before) if before else {}
    for name, record in (manifest_files(folder) if old else {}).items():
        if before and old.get(name) == record and (before / name).is_file() and (before / name).stat().st_size == record.size:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):
                os.link(before / name, target / name)
                shared.add(name)
    return shared


def _make_folders(root: Path, folder: Path) -> None:
    """Make `folder` and durably name it, and each one above it, up to the root."""
    if folder.is_dir():
        return
    root.mkdir(parents=True, exist_ok=True)
    if folder != root:
        _make_folders(root, folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A locked file in `folder`: one that nobody holds was left by a process that was killed."""
    while True:
        name = folder / f"{STAGING}{os.urandom(8).hex()}"
        with name.open("xb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not os.fstat(file.fileno()).st_nlink:
                continue  # swept away between its creation and its lock
            try:
                yield name, file
            finally:
                name.unlink(missing_ok=True)
            return


def _sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes left in `folder`; folders are `publish`'s own."""
    for litter in folder.glob(f"{STAGING}*"):
        if litter.suffix == ".lock" or not litter.is_file():
            continue
        with contextlib.suppress(OSError), litter.open("rb") as held:  # busy, or just finished
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            litter.unlink(missing_ok=True)
