"""Paths with wildcards: `*` and `?` within a name, `[...]` for one of some letters, `**` for any folders in between."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from ..errors import InvalidRequest, NotFound
from .paths import checked_path

__all__ = ["cut", "matches", "no_match", "start_of"]

_WILD = re.compile(r"[*?[]")
ANY_FOLDERS = "**"


def cut(path: str) -> tuple[str, str] | None:
    """The folder of a path with wildcards, which may be empty, and the pattern below it; None for a path without.

    Raises InvalidRequest for what no path may be, and for `**` that is only a part of a name.
    """
    names = path.split("/")
    first = next((place for place, name in enumerate(names) if _WILD.search(name)), None)
    if first is None:
        return None
    checked_path(path.removeprefix("s3://"))
    if any(ANY_FOLDERS in name and name != ANY_FOLDERS for name in names) or names[-1] == ANY_FOLDERS:
        raise InvalidRequest(
            "`**` stands for whole folders", field="path", remedy="Write it between two slashes, and a name after it: `shards/**/*.csv`."
        )
    return "/".join(names[:first]), "/".join(names[first:])


def start_of(pattern: str) -> str:
    """The letters that every match begins with."""
    return _WILD.split(pattern, maxsplit=1)[0]


def matches(name: str, pattern: str) -> bool:
    """Whether `name`, relative to the pattern's folder, is one that the pattern stands for; names that begin with a dot never are."""
    names = name.split("/")
    return not any(part.startswith(".") for part in names) and _match(names, pattern.split("/"))


def _match(names: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns:
        return not names
    if patterns[0] == ANY_FOLDERS:
        return any(_match(names[skipped:], patterns[1:]) for skipped in range(len(names)))
    return bool(names) and fnmatchcase(names[0], patterns[0]) and _match(names[1:], patterns[1:])


def no_match(folder: str, pattern: str) -> NotFound:
    """The error that says so."""
    return NotFound(
        f"no file matches `{'/'.join(filter(None, (folder, pattern)))[:200]}`",
        field="path",
        remedy="Check the folder and the pattern: `*` stands for any letters of one name, `**` for any folders. Case counts.",
    )
