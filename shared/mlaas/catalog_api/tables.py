"""What a data set holds: every row is read once, the columns and the first rows are kept to be shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from .. import datasets
from ..errors import InvalidRequest, TooLarge

__all__ = ["Table", "look"]

PREVIEW_ROWS = 5
PREVIEW_LETTERS = 200
TYPED_ROWS = 1000
MAX_COLUMNS = 500


@dataclass(frozen=True)
class Table:
    """`columns` are `{name, type}`, a type being one of JSON's or `mixed`; `preview` has long texts cut."""

    count: int
    columns: list[dict[str, str]]
    preview: list[dict[str, Any]]


def look(folder: Path, limit: int) -> Table:
    """Read all rows of the data files in `folder`. Raises InvalidRequest with the file and the line that cannot be read, TooLarge."""
    types: dict[str, set[str]] = {}
    preview, count = list[dict[str, Any]](), 0
    try:
        for file in datasets.files(folder):
            _check_parquet(file, limit)
        for row in datasets.read(folder, (), keep_others=True):
            count += 1
            if count <= TYPED_ROWS:
                for name, value in row.items():
                    types.setdefault(str(name)[:PREVIEW_LETTERS], set()).add(_type(value))
            if len(types) > MAX_COLUMNS:
                raise InvalidRequest(f"there are more than {MAX_COLUMNS} columns", remedy="Leave out those that nobody needs.")
            if len(preview) < PREVIEW_ROWS:
                preview.append({str(name)[:PREVIEW_LETTERS]: _cut(value) for name, value in row.items()})
    except InvalidRequest as error:
        error.field = "filename"
        raise
    if not count:
        raise InvalidRequest("the data set has no rows", field="filename", remedy="Send one with a row at least.")
    return Table(count, [{"name": name, "type": _one(found)} for name, found in types.items()], preview)


def _check_parquet(file: Path, limit: int) -> None:
    if file.suffix.lower() != ".parquet":
        return
    try:
        metadata = pyarrow.parquet.ParquetFile(file).metadata
        size = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    except (pyarrow.ArrowException, OSError, ValueError):
        raise InvalidRequest(f"{file.name}: this is no Parquet file, or a damaged one", remedy="Write it anew.") from None
    if size > limit:
        raise TooLarge(f"{file.name}: it holds more than {limit} bytes", remedy="Raise MLAAS_UPLOAD_BYTES, or use the storage directly.")


def _type(value: Any) -> str:
    kinds: tuple[tuple[type, str], ...] = (
        (bool, "boolean"),
        (int, "integer"),
        (float, "number"),
        (str, "string"),
        (list, "array"),
        (dict, "object"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), "null" if value is None else "string")


def _one(found: set[str]) -> str:
    named = found - {"null"}
    if named == {"integer", "number"}:
        return "number"
    return named.pop() if len(named) == 1 else ("mixed" if named else "null")


def _cut(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= PREVIEW_LETTERS else f"{text[:PREVIEW_LETTERS]}…"
