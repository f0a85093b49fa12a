"""What is predicted so far, kept in the storage beside the result: a job that is started again may be on another machine.

<output>/.draft-<task id>/draft.json              what the parts belong to: the request, the data's and the models' sha256
<output>/.draft-<task id>/part-000000.parquet     a chunk of rows; it is there whole or not at all
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import storage
from ..errors import NotFound, Unavailable
from ..jobs import Job

__all__ = ["Draft"]

RECORD = "draft.json"


@dataclass(frozen=True, kw_only=True)
class Draft:
    """The draft of a job in the folder `path` of a storage. While the storage is away, the job waits as for anything else."""

    path: str
    storage_type: str
    job: Job

    def resume(self, record: Mapping[str, Any], folder: Path) -> int:
        """How many parts are there for exactly `record`; begins anew where they are for something else. `folder` is to work in."""
        names = self.job.persist(lambda: storage.names(self.path, self.storage_type, settings=self.job.settings))
        if RECORD in names and self._record() == record:
            return next(number for number in range(len(names) + 1) if _name(number) not in names)
        self.remove()
        (folder / RECORD).write_text(json.dumps(record))
        self._put(folder / RECORD)
        return 0

    def add(self, number: int, table: Any, folder: Path) -> None:
        """Keep chunk `number`, a pyarrow table, durably and all or nothing."""
        from pyarrow import parquet

        file = folder / _name(number)
        parquet.write_table(table, file, compression="zstd")
        self._put(file)
        file.unlink()

    def merge(self, parts: int, schema: Any, file: Path, tick: Callable[[int], None]) -> None:
        """Write the rows of the first `parts` parts, which have the pyarrow `schema`, into `file`, as its extension says.

        `tick` hears how many parts are done. Raises Unavailable where a part is missing or damaged; then the draft is gone.
        """
        import pyarrow

        try:
            with _writer(file, schema) as writer:
                for number in range(parts):
                    writer.write(self._part(number))
                    tick(number + 1)
        except (pyarrow.ArrowException, OSError, NotFound):
            self.remove()
            raise Unavailable("a part of the draft is missing or damaged; it is made anew") from None

    def remove(self) -> None:
        """Remove the draft, if there is one."""
        self.job.persist(lambda: storage.remove(self.path, self.storage_type, settings=self.job.settings))

    def _record(self) -> Any:
        try:
            return json.loads(self._fetch(RECORD).read_bytes())
        except (ValueError, NotFound):
            return None

    def _part(self, number: int) -> Any:
        from pyarrow import parquet

        return parquet.read_table(self._fetch(_name(number)))

    def _fetch(self, name: str) -> Path:
        return self.job.persist(lambda: storage.fetch(f"{self.path}/{name}", self.storage_type, settings=self.job.settings))

    def _put(self, file: Path) -> None:
        self.job.persist(lambda: storage.put(file, f"{self.path}/{file.name}", self.storage_type, settings=self.job.settings))


class _JsonLines:
    """Writes tables as one JSON object a line."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("w", encoding="utf-8")

    def __enter__(self) -> _JsonLines:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, table: Any) -> None:
        self._file.writelines(f"{line}\n" for line in _lines(table))


def _lines(table: Any) -> Iterator[str]:
    for batch in table.to_batches(max_chunksize=512):
        for row in batch.to_pylist():
            yield json.dumps(row, ensure_ascii=False)


def _writer(file: Path, schema: Any) -> Any:
    from pyarrow import parquet

    return parquet.ParquetWriter(file, schema, compression="zstd") if file.suffix == ".parquet" else _JsonLines(file)


def _name(number: int) -> str:
    return f"part-{number:06}.parquet"
