"""Rows of a data set: CSV, TSV, JSONL, Parquet or Arrow, one file or many, read in bounded memory.

The text formats are UTF-8, with or without a byte order mark, and may be compressed with gzip. Numbers in CSV and TSV stay text.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from . import arrow_tables
from .dataset_columns import alike, require
from .dataset_files import EXTENSIONS, FIELD, JSON_LINES, extension, files, malformed
from .errors import InvalidRequest

__all__ = ["EXTENSIONS", "files", "lines", "malformed", "read"]

Row = dict[str, Any]

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
MAX_LINE_BYTES = 16 * 1024**2


def read(path: Path, columns: Sequence[str], keep_others: bool = False) -> Iterator[Row]:
    """Rows of the data set at `path` (see `dataset_files.files`), file by file.

    A row has the keys `columns`, and with `keep_others` those of the file's other columns after them. Raises InvalidRequest
    that names what is wrong: a column that is not there (and the nearest that is), a malformed row with its file and line, an
    unknown kind of file, a file with other columns than the first. Nothing is read before the first row is asked for.
    """
    found = files(path)
    if len(found) > 1:
        _check_alike(found)
    for file in found:
        for row in _rows(file, columns, keep_others):
            yield _arranged(row, columns, keep_others)


def _rows(file: Path, columns: Sequence[str], keep_others: bool) -> Iterator[Row]:
    suffix = extension(file)
    if suffix in _DELIMITERS:
        return _delimited(file, suffix, columns)
    return _json_lines(file, columns) if suffix in JSON_LINES else arrow_tables.rows(file, columns, keep_others)


def _check_alike(found: Sequence[Path]) -> None:
    """Before anything is read of the first. JSON has columns row by row: there those asked for are looked for in each."""
    if extension(found[0]) in JSON_LINES:
        return
    expected = _columns(found[0])
    for file in found[1:]:
        alike(found[0].name, expected, file.name, _columns(file))


def _columns(file: Path) -> list[str]:
    suffix = extension(file)
    if suffix not in _DELIMITERS:
        return arrow_tables.columns(file)
    texts = (text for _, text in lines(file))
    try:
        names = next(values for values in csv.reader(texts, delimiter=_DELIMITERS[suffix], strict=True) if values)
    except StopIteration:
        raise _empty(file) from None
    except csv.Error:
        raise malformed(file, 1, "its quoting or its line ends are broken", "Correct the line of the columns' names.") from None
    return [name.strip() for name in names]


def _arranged(row: Row, columns: Sequence[str], keep_others: bool) -> Row:
    wanted = {name: row[name] for name in columns}
    return {**wanted, **{name: value for name, value in row.items() if name not in wanted}} if keep_others else wanted


def lines(file: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines (from 1) of a text file, gzip'ed or not, with their ends as they are. Raises InvalidRequest."""
    open_it: Callable[[Path, str], Any] = gzip.open if file.name.lower().endswith(".gz") else Path.open
    with open_it(file, "rb") as opened:
        number = 0
        while line := _next_line(opened, file, number + 1):
            number += 1
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise malformed(file, number, "it is not UTF-8", "Save the file as UTF-8.") from None
            yield number, text


def _next_line(opened: IO[bytes], file: Path, number: int) -> bytes:
    try:
        line = opened.readline(MAX_LINE_BYTES + 1)
    except (gzip.BadGzipFile, zlib.error, EOFError):
        raise malformed(file, number, "the gzip file is damaged or incomplete", "Compress the file anew.") from None
    if len(line) > MAX_LINE_BYTES:
        raise malformed(file, number, f"it is longer than {MAX_LINE_BYTES // 1024**2} MiB", "Put one row on each line.")
    return line


def _delimited(file: Path, suffix: str, columns: Sequence[str]) -> Iterator[Row]:
    """CSV or TSV with a header, quoted with `"`. A quoted field may hold line ends."""
    last = 0

    def texts() -> Iterator[str]:
        nonlocal last
        for last, text in lines(file):  # noqa: B007 - the number is for the messages
            yield text

    reader = csv.reader(texts(), delimiter=_DELIMITERS[suffix], strict=True)
    header: list[str] | None = None
    while True:
        first = last + 1
        try:
            values = next(reader, None)
        except csv.Error as error:
            too_long = "field limit" in str(error)
            why = "a field never ends, or is too long" if too_long else "its quoting or its line ends are broken"
            raise malformed(file, first, why, 'Put a field that holds " in double quotes, and double each " within it.') from None
        if values is None:
            break
        if not values:
            continue
        if header is None:
            header = _header(file, values, columns)
        elif len(values) != len(header):
            raise malformed(
                file,
                first,
                f"it has {len(values)} fields where the header has {len(header)}",
                "Correct the row; quote fields that hold the separator.",
            )
        else:
            yield dict(zip(header, values, strict=True))
    if header is None:
        raise _empty(file)


def _empty(file: Path) -> InvalidRequest:
    return InvalidRequest(f"{file.name}: the file is empty", field=f"{FIELD}.path", remedy="The first line must name the columns.")


def _header(file: Path, names: list[str], columns: Sequence[str]) -> list[str]:
    names = [name.strip() for name in names]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise malformed(file, 1, f"the column {twice[:100]!r} occurs more than once", "Give each column a name of its own.")
    require(file.name, names, columns)
    return names


def _json_lines(file: Path, columns: Sequence[str]) -> Iterator[Row]:
    for number, text in lines(file):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            raise malformed(file, number, "it is not JSON", "Put one JSON object on each line.") from None
        if not isinstance(row, dict):
            raise malformed(file, number, "it is not a JSON object", "Put one JSON object on each line.")
        require(f"{file.name}, line {number}", list(row), columns)
        yield row
