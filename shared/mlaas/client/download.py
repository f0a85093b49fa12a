"""Files of the catalog into a folder of the user's: gone on with where a connection broke, verified, all or nothing."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ..catalog.contracts import FileShown, FilesShown
from ..errors import InvalidRequest, OutOfRange, Unavailable
from ..storage.downloads import check_target
from ..storage.manifests import sha256_of
from ..storage.paths import is_safe_name
from .connection import Connection, catalog_request, sent
from .problems import Unreachable
from .steps import Request, Steps

__all__ = ["saved"]

BREAKS = 20  # connections that may break in a row within one file


def saved(link: Connection, path: Sequence[str], files: FilesShown, to: Path, show: Callable[[int, int], None]) -> Steps[Path]:
    """Download `files`, which are at `path` of the catalog, into the folder `to`, and give it."""
    place = check_target(to)
    total, before = sum(one.size for one in files.items), 0
    staging = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".partial", dir=place.parent))
    try:
        for one in files.items:
            if not is_safe_name(one.name):
                raise InvalidRequest(f"the platform names a file {one.name!r}, which could be anywhere", field="files")
            target = staging / one.name
            target.parent.mkdir(parents=True, exist_ok=True)
            yield from _file(link, (*path, one.name), one, target, lambda done, before=before: show(before + done, total))  # type: ignore[misc]
            before += one.size
        staging.chmod(0o755)
        os.replace(staging, place)
    except OSError:
        raise Unavailable("the folder to download to cannot be written", field="to", remedy="See that it has room.") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return place


def _file(link: Connection, path: Sequence[str], one: FileShown, target: Path, show: Callable[[int], None]) -> Steps[None]:
    target.touch()
    had, breaks = 0, 0

    def moved(_: int) -> None:
        show(target.stat().st_size)

    def request() -> Request:
        have = target.stat().st_size
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
        return dataclasses.replace(catalog_request(link, "GET", path, headers=headers), to=target, moved=moved)

    while target.stat().st_size < one.size or one.size == 0:
        try:
            yield from sent(link, request)
            break
        except OutOfRange:
            break
        except Unreachable:  # what came since the last break is worth going on
            breaks = 0 if target.stat().st_size > had else breaks + 1
            had = target.stat().st_size
            if breaks >= BREAKS or not had:
                raise
    if target.stat().st_size != one.size or (one.sha256 and sha256_of(target) != one.sha256):
        raise Unavailable(f"`{one.name}` did not arrive as the catalog has it", remedy="Download it again.")
