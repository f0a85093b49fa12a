"""Rows of Parquet and Arrow files, in bounded memory. Hugging Face's class labels, which are kept as numbers, become their names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .dataset_columns import require
from .dataset_files import FIELD
from .errors import InvalidRequest

if TYPE_CHECKING:
    import pyarrow

__all__ = ["columns", "rows"]

Row = dict[str, Any]

ROWS = 1024  # made into objects at once; a row group or a record batch may hold millions
PARQUET = ".parquet"
_MAGIC = b"ARROW1"  # how a file begins whose record batches can be found; others are streams, as `datasets` writes them


def columns(file: Path) -> list[str]:
    """The names of the file's columns. Raises InvalidRequest."""
    with _readable(file), ExitStack() as stack:
        return list(_opened(file, stack).names)


def rows(file: Path, wanted: Sequence[str], keep_others: bool) -> Iterator[Row]:
    """The rows of the file, with the columns `wanted` or all. Raises InvalidRequest for a missing column or a damaged file."""
    with _readable(file), ExitStack() as stack:
        schema = _opened(file, stack)
        require(file.name, schema.names, wanted)
        kept = schema.names if keep_others else [name for name in schema.names if name in wanted]
        labels = {name: found for name, found in _class_labels(schema).items() if name in kept}
        for batch in _batches(file, kept, stack):
            for start in range(0, batch.num_rows, ROWS):
                for row in batch.slice(start, ROWS).to_pylist():
                    yield {**row, **{name: _named(row[name], names) for name, names in labels.items()}} if labels else row


def _opened(file: Path, stack: ExitStack) -> pyarrow.Schema:
    from pyarrow import parquet

    if file.name.lower().endswith(PARQUET):
        return stack.enter_context(parquet.ParquetFile(file, pre_buffer=False)).schema_arrow
    return _arrow(file, stack, None).schema


def _batches(file: Path, kept: list[str], stack: ExitStack) -> Iterator[pyarrow.RecordBatch]:
    from pyarrow import ipc, parquet

    if file.name.lower().endswith(PARQUET):
        table = stack.enter_context(parquet.ParquetFile(file, pre_buffer=False))
        yield from table.iter_batches(batch_size=ROWS, columns=kept)
        return
    reader = _arrow(file, stack, kept)
    if isinstance(reader, ipc.RecordBatchFileReader):
        yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        yield from reader


def _arrow(file: Path, stack: ExitStack, kept: list[str] | None) -> Any:
    """A reader of an Arrow file of either form, memory-mapped."""
    import pyarrow
    from pyarrow import ipc

    source = stack.enter_context(pyarrow.memory_map(str(file)))
    open_it = ipc.open_file if source.read(len(_MAGIC)) == _MAGIC else ipc.open_stream
    source.seek(0)
    if kept is None:
        return stack.enter_context(open_it(source))
    names = stack.enter_context(open_it(source)).schema.names
    source.seek(0)
    return stack.enter_context(open_it(source, options=ipc.IpcReadOptions(included_fields=[names.index(name) for name in kept])))


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError):
        kind = "Parquet" if file.name.lower().endswith(PARQUET) else "Arrow"
        raise InvalidRequest(
            f"{file.name}: the {kind} file is damaged or incomplete", field=f"{FIELD}.path", remedy="Write the file anew."
        ) from None


def _class_labels(schema: pyarrow.Schema) -> dict[str, list[str]]:
    """The names of the classes of each column of class labels, or of lists of them, as `datasets` notes them in the schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        found = {column: _names(feature) for column, feature in features.items()}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return {column: names for column, names in found.items() if names and column in schema.names}


def _names(feature: Any) -> list[str]:
    if isinstance(feature, list) and len(feature) == 1:
        return _names(feature[0])
    if not isinstance(feature, dict):
        return []
    if feature.get("_type") == "ClassLabel":
        return [str(name) for name in feature["names"]]
    return _names(feature.get("feature"))


def _named(value: Any, names: list[str]) -> Any:
    """A number's name, and None for those that stand for no class, such as -1."""
    if isinstance(value, list):
        return [_named(each, names) for each in value]
    if isinstance(value, int):
        return names[value] if 0 <= value < len(names) else None
    return value
