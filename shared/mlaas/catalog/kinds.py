"""What the catalog holds, and how it is called."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, get_args

__all__ = ["FIELDS", "KINDS", "NOUNS", "Kind", "name_of", "now"]

Kind = Literal["models", "indexes", "datasets"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NOUNS: Mapping[Kind, str] = {"models": "model", "indexes": "index", "datasets": "data set"}
FIELDS: Mapping[Kind, str] = {"models": "model", "indexes": "dataset", "datasets": "dataset"}  # of a request, that names an entry


def name_of(path: str, name: str | None) -> str:
    """The catalog name of what is saved at `path`: `name`, or the path's last part in the catalog's alphabet."""
    if name:
        return name
    last = path.rstrip("/").rpartition("/")[2].lower()
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in last).lstrip("._-")[:100] or "unnamed"


def now() -> str:
    """This moment as the catalog writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
