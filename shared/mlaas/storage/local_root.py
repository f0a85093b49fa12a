"""The one folder under which local storage lives, and what its errors become."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InvalidRequest, Unavailable
from ..settings import Settings

__all__ = ["STAGING", "inside", "root_of", "writing"]

STAGING = ".staging-"  # how the names of what is being written begin


def root_of(settings: Settings) -> Path:
    """The root itself, links resolved."""
    return Path(os.path.realpath(settings.artefacts))


def inside(root: Path, path: str) -> Path:
    """`path` below `root`, links resolved. Raises InvalidRequest where it leaves the root."""
    try:
        place = Path(os.path.realpath(root / path))
    except (OSError, ValueError):
        place = Path("/")
    if root not in place.parents:
        raise InvalidRequest("the path leaves the root of local storage", field="path", remedy="Give a path that stays under MLAAS_ROOT.")
    return place


@contextmanager
def writing() -> Iterator[None]:
    """Raises InvalidRequest where a file is in a folder's place, and Unavailable where the file system fails."""
    try:
        yield
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise InvalidRequest("a part of the path is a file, or its end a folder", field="path", remedy="Choose another path.") from None
    except OSError:
        raise Unavailable("local storage cannot be written", remedy="See that the folder of MLAAS_ROOT is writable and has room.") from None
