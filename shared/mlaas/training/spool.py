"""Rows on disk instead of in memory: written once in their order, then read one by one in any order.

The files have no name: the system removes them with the process, however it ends. Rows are read with `pread` and not mapped into
memory, so that what a run has read does not count as its memory.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from .. import dataset_files
from ..errors import InvalidRequest

__all__ = ["Records", "Selected", "check_room", "packed", "token_ids", "unpacked"]

T = TypeVar("T")
U = TypeVar("U")

WRITTEN = 1024**2  # bytes that are written at once
RESERVE = 64 * 1024**2  # bytes of the disk that are left to others: checkpoints, the model's export
SHARE = 2  # what a run spools, in sizes of its data: texts once, and token ids of about as many bytes
ID_BYTES = 4


class Records(Sequence[T], Generic[T]):
    """Things in a file in `folder` (None: the system's for temporary files), turned into bytes and back by `encode` and `decode`.

    In memory are 8 bytes for each. `append` raises InvalidRequest where the disk is full.
    """

    def __init__(self, folder: Path | None, encode: Callable[[T], bytes], decode: Callable[[bytes], T]) -> None:
        self._encode, self._decode = encode, decode
        self._folder = folder or Path(tempfile.gettempdir())
        self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 - closed with this object
        weakref.finalize(self, self._file.close)
        self._pending = bytearray()
        self._ends = array("q", [0])

    def append(self, one: T) -> None:
        """Add one at the end."""
        content = self._encode(one)
        self._pending += content
        self._ends.append(self._ends[-1] + len(content))
        if len(self._pending) >= WRITTEN:
            self._write()

    def extend(self, several: Iterable[T]) -> None:
        """Add several."""
        for one in several:
            self.append(one)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of each."""
        ends = np.frombuffer(self._ends.tobytes(), np.int64)
        return ends[1:] - ends[:-1]

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return Selected(self, range(len(self))[index])
        at = range(len(self))[index]
        if self._pending:
            self._write()
        start = self._ends[at]
        return self._decode(os.pread(self._file.fileno(), self._ends[at + 1] - start, start))

    def __iter__(self) -> Iterator[T]:
        return (self[at] for at in range(len(self)))

    def _write(self) -> None:
        _check_free(self._folder, len(self._pending), self._ends[-1])
        try:
            while self._pending:
                del self._pending[: self._file.write(self._pending)]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise _full(self._ends[-1], 0) from None


class Selected(Sequence[T], Generic[T]):
    """The `indices` of `all_of`, read when they are asked for."""

    def __init__(self, all_of: Sequence[T], indices: Sequence[int]) -> None:
        self._all, self._indices = all_of, indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        return Selected(self._all, self._indices[index]) if isinstance(index, slice) else self._all[self._indices[index]]

    def __iter__(self) -> Iterator[T]:
        return (self._all[index] for index in self._indices)


def token_ids(folder: Path | None) -> Records[list[int]]:
    """An empty spool of token ids; each takes ID_BYTES."""

    def decode(content: bytes) -> list[int]:
        return array("i", content).tolist()

    return Records(folder, lambda ids: array("i", ids).tobytes(), decode)


def packed(*texts: str) -> bytes:
    """Texts as bytes, each after its length; also such as are no UTF-8."""
    parts = [text.encode("utf-8", "surrogatepass") for text in texts]
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def unpacked(content: bytes) -> list[str]:
    """The reverse of `packed`."""
    texts, at = [], 0
    while at < len(content):
        end = at + 4 + int.from_bytes(content[at : at + 4], "little")
        texts.append(content[at + 4 : end].decode("utf-8", "surrogatepass"))
        at = end
    return texts


def check_room(folder: Path, table: Path) -> None:
    """Raise InvalidRequest, saying how much is needed, unless the disk of `folder` has room for a run on the data set `table`.

    What compressed files become is not known before: `append` looks again.
    """
    found = [table] if table.is_file() else dataset_files.members(table).values()
    needed = SHARE * sum(file.stat().st_size for file in found)
    _check_free(folder, needed, needed)


def _check_free(folder: Path, needed: int, in_all: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + RESERVE:
        raise _full(in_all, max(0, free - RESERVE))


def _full(needed: int, free: int) -> InvalidRequest:
    sizes = f"at least {-(-needed // 1024**2)} MiB are needed, {free // 1024**2} MiB are free"
    return InvalidRequest(
        f"the rows of the data set do not fit on the job's disk: {sizes}",
        field="dataset.path",
        remedy="Give the job a larger volume for MLAAS_HOME, or train on fewer rows.",
    )
