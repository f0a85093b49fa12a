"""Which columns the files of a data set must have: those that are asked for, and all files the same."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from .dataset_files import FIELD
from .errors import InvalidRequest

__all__ = ["alike", "require"]


def require(where: str, present: Sequence[str], columns: Sequence[str]) -> None:
    """Raise InvalidRequest unless all `columns` are `present`; it names the nearest of those that are, and `where` to look."""
    missing = next((name for name in columns if name not in present), None)
    if missing is None:
        return
    near = difflib.get_close_matches(missing, present, n=1, cutoff=0.5)
    shown = ", ".join(name[:100] for name in present[:50])
    remedy = (f"Did you mean `{near[0][:100]}`? " if near else "") + f"The columns are: {shown}."
    raise InvalidRequest(f"{where}: there is no column `{missing}`", field=FIELD, remedy=remedy)


def alike(first: str, expected: Sequence[str], other: str, present: Sequence[str]) -> None:
    """Raise InvalidRequest unless the files `first` and `other` have the same columns, in whatever order."""
    lacking, further = sorted(set(expected) - set(present)), sorted(set(present) - set(expected))
    if not lacking and not further:
        return
    what = f"it lacks the column `{lacking[0][:100]}`" if lacking else f"it has a column `{further[0][:100]}` more"
    raise InvalidRequest(
        f"{other}: its columns are not those of {first}: {what}",
        field=f"{FIELD}.path",
        remedy="Write all files of a data set with the same columns, or choose those that belong together by a pattern.",
    )
