"""Results on their way from the storage to a file of the user's."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import progress_bars, references, storage
from ..errors import InvalidRequest
from ..settings import Settings

__all__ = ["FORMATS", "save"]

# The file's extension, and the format in which the platform is asked for the result.
FORMATS: Mapping[str, str] = {".parquet": "parquet", ".jsonl": "jsonl", ".csv": "parquet"}


def save(predictions: Mapping[str, Any], target: Path, settings: Settings, as_json: bool) -> None:
    """Fetch what the task's `predictions` refer to, verify it, and put it at `target`, all or nothing."""
    with progress_bars.transfer(f"fetching {target.name}", disable=as_json) as progress:
        place = storage.fetch(predictions["path"], predictions["storage_type"], settings=settings, progress=progress)
    references.verify(place, predictions["size"], predictions["sha256"])
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if target.suffix == ".csv":
            _as_csv(place, temporary)
        else:
            shutil.copyfile(place, temporary)
        temporary.replace(target)
    except OSError:
        raise InvalidRequest(
            "the result cannot be written", field="--output", remedy="See that the folder has room and may be written."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def _as_csv(table: Path, target: Path) -> None:
    """A Parquet file as CSV; a list (scores, masks, neighbours) becomes JSON."""
    from pyarrow import parquet

    with parquet.ParquetFile(table) as source, target.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(source.schema_arrow.names)
        for batch in source.iter_batches(batch_size=4096):
            for row in batch.to_pylist():
                rows.writerow([json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value for value in row.values()])
