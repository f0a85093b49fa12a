"""What rows look like: the type of each column, and the first rows to be shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["LETTERS", "Columns"]

LETTERS = 200  # of a text or a name that is shown
ROWS = 5
TYPED_ROWS = 1000
_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "boolean"),
    (int, "integer"),
    (float, "number"),
    (str, "string"),
    (list, "array"),
    (dict, "object"),
)


@dataclass
class Columns:
    """Collects rows. A type is one of JSON's, or `mixed`; `preview` has long texts cut."""

    preview: list[dict[str, Any]] = field(default_factory=list)
    count: int = 0
    _types: dict[str, set[str]] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any]) -> None:
        """Look at a row."""
        self.count += 1
        if self.count <= TYPED_ROWS:
            for name, value in row.items():
                self._types.setdefault(str(name)[:LETTERS], set()).add(_type(value))
        if len(self.preview) < ROWS:
            self.preview.append({str(name)[:LETTERS]: _cut(value) for name, value in row.items()})

    @property
    def columns(self) -> list[dict[str, str]]:
        """Name and type of each column, in the order in which they were first seen."""
        return [{"name": name, "type": _one(found)} for name, found in self._types.items()]


def _type(value: Any) -> str:
    return next((name for kind, name in _KINDS if isinstance(value, kind)), "null" if value is None else "string")


def _one(found: set[str]) -> str:
    named = found - {"null"}
    if named == {"integer", "number"}:
        return "number"
    return named.pop() if len(named) == 1 else ("mixed" if named else "null")


def _cut(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= LETTERS else f"{text[:LETTERS]}…"
