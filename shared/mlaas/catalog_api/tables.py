"""What a data set holds: every row is read once, the columns and the first rows are kept to be shown."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.parquet

from .. import datasets
from ..catalog.columns import Columns
from ..errors import InvalidRequest, TooLarge

__all__ = ["look"]

MAX_COLUMNS = 500


def look(folder: Path, limit: int) -> Columns:
    """Read all rows of the data files in `folder`. Raises InvalidRequest with the file and the line that cannot be read, TooLarge."""
    found = Columns()
    try:
        for file in datasets.files(folder):
            _check_parquet(file, limit)
        for row in datasets.read(folder, (), keep_others=True):
            if len(row) > MAX_COLUMNS:
                raise InvalidRequest(f"there are more than {MAX_COLUMNS} columns", remedy="Leave out those that nobody needs.")
            found.add(row)
    except InvalidRequest as error:
        error.field = "filename"
        raise
    if not found.count:
        raise InvalidRequest("the data set has no rows", field="filename", remedy="Send one with a row at least.")
    return found


def _check_parquet(file: Path, limit: int) -> None:
    if file.suffix.lower() != ".parquet":
        return
    try:
        with pyarrow.parquet.ParquetFile(file) as opened:
            size = sum(opened.metadata.row_group(number).total_byte_size for number in range(opened.metadata.num_row_groups))
    except (pyarrow.ArrowException, OSError, ValueError):
        raise InvalidRequest(f"{file.name}: this is no Parquet file, or a damaged one", remedy="Write it anew.") from None
    if size > limit:
        raise TooLarge(f"{file.name}: it holds more than {limit} bytes", remedy="Raise MLAAS_UPLOAD_BYTES, or use the storage directly.")
