"""The rows of a file, in chunks of bounded memory, and the columns that are predicted for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import datasets
from ..contracts import LoaderKwargs
from ..errors import InvalidRequest, within
from .predictors import Columns, Predictor

__all__ = ["Row", "chunks", "predicted", "read", "rows_of_chunk"]

CHUNK_CHARACTERS = 8_000_000  # a chunk of long texts has fewer rows
CHUNK_FINDINGS = 100_000  # and so has one where top_k gives each row much to hold
STEP_ROWS = 512  # predicted between two looks at whether the task was cancelled
_FIELD = re.compile(r"predict_input\.input_text\.(\d+)")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the file: its number from 0, its text and its id; either may be missing in the file."""

    number: int
    text: str | None
    id: str | None


def rows_of_chunk(wanted: int, top_k: int) -> int:
    """How many rows a chunk has at the most."""
    return max(1, min(wanted, CHUNK_FINDINGS // top_k))


def read(table: Path, columns: LoaderKwargs, part: str) -> Iterator[Row]:
    """The rows of a file or folder, in order; `part` is the request's field that refers to it. Raises what `datasets.read` raises."""
    names = [columns.page_content_column, *([columns.id_column] if columns.id_column else [])]
    with within(part.removesuffix(".dataset")):
        for number, row in enumerate(datasets.read(table, names)):
            yield Row(number, _text(row[columns.page_content_column]), _text(row[columns.id_column]) if columns.id_column else None)


def chunks(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    """The rows in lists of at most `size`, and at most about CHUNK_CHARACTERS; the same lists each time."""
    chunk: list[Row] = []
    characters = 0
    for row in rows:
        chunk.append(row)
        characters += len(row.text or "")
        if len(chunk) >= size or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def predicted(rows: list[Row], predictor: Predictor, part: str, tick: Callable[[int], None]) -> list[Columns]:
    """The result's rows for `rows`; those without text have null in the predicted columns.

    `tick` hears how many are done. Raises InvalidRequest, naming the row and the request's field `part`, for a text that the
    model cannot take.
    """
    found: list[Columns] = []
    for start in range(0, len(rows), STEP_ROWS):
        step = rows[start : start + STEP_ROWS]
        full = [row for row in step if row.text and row.text.strip()]
        answers = dict(zip((row.number for row in full), _answers(full, predictor, part), strict=True))
        found.extend({"row": row.number, "id": row.id, "text": row.text, **answers.get(row.number, {})} for row in step)
        tick(len(found))
    return found


def _answers(rows: list[Row], predictor: Predictor, part: str) -> list[Columns]:
    if not rows:
        return []
    try:
        return predictor.predict([row.text or "" for row in rows])
    except InvalidRequest as error:
        if not (which := _FIELD.fullmatch(error.field or "")):
            raise
        number = rows[int(which[1])].number
        raise InvalidRequest(f"row {number} (the first is 0): {error.detail}", field=part, remedy=error.remedy) from None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
