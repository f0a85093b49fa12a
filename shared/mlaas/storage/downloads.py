"""A copy of what was fetched in a folder of the user's: verified, and there whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InvalidRequest, Unavailable
from .local_files import copy_files
from .manifests import check_hashes, check_sizes, manifest_files, sync_folder
from .progress import Progress

__all__ = ["check_target", "copy_to"]


def check_target(to: Path) -> Path:
    """`to`, links resolved. Raises InvalidRequest unless it is absent or an empty folder, in a folder that exists."""
    place = Path(os.path.realpath(to))
    try:
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise InvalidRequest(f"`{to.name}` exists and is no empty folder", field="to", remedy="Name a folder that is new or empty.")
        if not place.parent.is_dir():
            raise InvalidRequest(f"the folder that `{to.name}` should be in does not exist", field="to", remedy="Make it first.")
    except OSError:
        raise Unavailable("the folder to download to cannot be read", field="to", remedy="Name another one.") from None
    return place


def copy_to(source: Path, to: Path, progress: Progress | None) -> None:
    """Copy a file or the files of a folder into `to`, and rename it into place when all agree with their manifest, if they have one."""
    place = check_target(to)
    folder = source if source.is_dir() else source.parent
    found = source.rglob("*") if source.is_dir() else [source]  # links among them are the storage's own: the hub's cache has such
    names = sorted(one.relative_to(folder).as_posix() for one in found if one.is_file())
    try:
        with _staging(place) as staging:
            copy_files(folder, names, staging, progress)
            files = manifest_files(staging)
            check_sizes(staging, files)
            check_hashes(staging, files)
            os.replace(staging, place)
        sync_folder(place.parent)
    except OSError:
        raise Unavailable("the folder to download to cannot be written", field="to", remedy="See that it has room.") from None


@contextmanager
def _staging(place: Path) -> Iterator[Path]:
    """An empty, locked folder beside `place`: what a killed download left in it is removed, what one at work holds is not."""
    staging = place.with_name(f".{place.name}.partial")
    staging.mkdir(exist_ok=True)
    descriptor = os.open(staging, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidRequest("another download to this folder is at work", field="to", remedy="Name another folder.") from None
        for left in staging.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            yield staging
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    finally:
        os.close(descriptor)
