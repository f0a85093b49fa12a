"""Rows of a data set: CSV, TSV, JSONL or Parquet, one file or a folder of them, read in bounded memory.

The text formats are UTF-8, with or without a byte order mark, and may be compressed with gzip. Numbers in CSV and TSV stay text.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any

from .errors import InvalidRequest, NotFound

__all__ = ["EXTENSIONS", "files", "lines", "malformed", "read"]

Row = dict[str, Any]

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")
_TEXT = (*_DELIMITERS, *_JSON_LINES)
EXTENSIONS = (*_TEXT, *(f"{suffix}.gz" for suffix in _TEXT), ".parquet")
MAX_LINE_BYTES = 16 * 1024**2
PARQUET_ROWS = 1024  # read at once; a row group may hold millions
FIELD = "dataset"


def read(path: Path, columns: Sequence[str], keep_others: bool = False) -> Iterator[Row]:
    """Rows of the file `path`, or of each data file in the folder `path` in the order of their names.

    A row has the keys `columns`, and with `keep_others` those of the file's other columns after them. Raises InvalidRequest
    that names what is wrong: a column that is not there (and the nearest that is), a malformed row with its file and line, an
    unknown kind of file. Nothing is read before the first row is asked for.
    """
    for file in files(path):
        suffix = _extension(file)
        if suffix == ".parquet":
            rows = _parquet(file, columns, keep_others)
        else:
            parse = _json_lines if suffix in _JSON_LINES else _delimited
            rows = parse(file, suffix, columns)
        for row in rows:
            yield _arranged(row, columns, keep_others)


def files(path: Path, extensions: tuple[str, ...] = EXTENSIONS) -> list[Path]:
    """The file `path`, or the data files in the folder `path` in the order of their names. Raises InvalidRequest, NotFound."""
    if path.is_file():
        _extension(path, extensions)
        return [path]
    if not path.is_dir():
        raise NotFound("the data set does not exist", field=f"{FIELD}.path", remedy="Name a file, or a folder of files.")
    home = path.resolve()
    found = sorted(file for file in path.iterdir() if file.is_file() and _is_data(file.name, extensions))
    if not found:
        raise InvalidRequest(
            "the folder holds no data file", field=f"{FIELD}.path", remedy=f"Put files in it that end in {', '.join(extensions)}."
        )
    if any(not file.resolve().is_relative_to(home) for file in found):
        raise InvalidRequest("the folder holds a link that leads out of it", field=f"{FIELD}.path", remedy="Put the file itself there.")
    return found


def _is_data(name: str, extensions: tuple[str, ...]) -> bool:
    return name.lower().endswith(extensions) and not name.startswith((".", "_"))


def _extension(file: Path, extensions: tuple[str, ...] = EXTENSIONS) -> str:
    """The kind of `file`: its extension, without `.gz`."""
    known = next((suffix for suffix in extensions if file.name.lower().endswith(suffix)), None)
    if known is None:
        raise InvalidRequest(
            f"{file.name}: not a known kind of data file",
            field=f"{FIELD}.path",
            remedy=f"Its name must end in one of {', '.join(extensions)}.",
        )
    return known.removesuffix(".gz")


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
        raise InvalidRequest(f"{file.name}: the file is empty", field=f"{FIELD}.path", remedy="The first line must name the columns.")


def _header(file: Path, names: list[str], columns: Sequence[str]) -> list[str]:
    names = [name.strip() for name in names]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise malformed(file, 1, f"the column {twice[:100]!r} occurs more than once", "Give each column a name of its own.")
    _require(file.name, names, columns)
    return names


def _json_lines(file: Path, suffix: str, columns: Sequence[str]) -> Iterator[Row]:
    for number, text in lines(file):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            raise malformed(file, number, "it is not JSON", "Put one JSON object on each line.") from None
        if not isinstance(row, dict):
            raise malformed(file, number, "it is not a JSON object", "Put one JSON object on each line.")
        _require(f"{file.name}, line {number}", list(row), columns)
        yield row


def _parquet(file: Path, columns: Sequence[str], keep_others: bool) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        with closing(parquet.ParquetFile(file, pre_buffer=False)) as table:
            _require(file.name, table.schema_arrow.names, columns)
            for batch in table.iter_batches(batch_size=PARQUET_ROWS, columns=None if keep_others else list(columns)):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError):
        raise InvalidRequest(
            f"{file.name}: the Parquet file is damaged or incomplete", field=f"{FIELD}.path", remedy="Write the file anew."
        ) from None


def _require(where: str, present: Sequence[str], columns: Sequence[str]) -> None:
    missing = next((name for name in columns if name not in present), None)
    if missing is None:
        return
    near = difflib.get_close_matches(missing, present, n=1, cutoff=0.5)
    shown = ", ".join(name[:100] for name in present[:50])
    remedy = (f"Did you mean `{near[0][:100]}`? " if near else "") + f"The columns are: {shown}."
    raise InvalidRequest(f"{where}: there is no column `{missing}`", field=FIELD, remedy=remedy)


def malformed(file: Path, line: int, why: str, remedy: str) -> InvalidRequest:
    """What is to be raised for a line that cannot be read."""
    return InvalidRequest(f"{file.name}, line {line}: {why}", field=f"{FIELD}.path", remedy=remedy)
