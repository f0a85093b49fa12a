"""FAISS files: written row by row, and opened memory-mapped once their headers promise exactly the bytes that are there.

The layouts are those of faiss/impl/index_write.cpp, release 1.15: IndexFlatL2 (`IxF2`), IndexHNSWFlat (`IHNf`) and
IndexIVFPQ (`IwPQ`). FAISS trusts the lengths in a file, so they are walked here before it reads any of them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidRequest

__all__ = ["INDEX", "VECTORS", "FlatFile", "check", "library", "open_index", "size_of", "vectors_of", "writing_flat"]

INDEX, VECTORS = "index.faiss", "vectors.faiss"
_KINDS = {"flat": b"IxF2", "hnsw": b"IHNf", "ivf_pq": b"IwPQ"}
# Kind, dimension, count, two unused numbers, trained, metric (1 is L2).
_HEADER = struct.Struct("<4siqqq?i")
_LENGTH = struct.Struct("<q")
_FLAT_HEADER = _HEADER.size + _LENGTH.size
_UNUSED = 1 << 20


def check(holds: bool, why: str) -> None:
    """Raise InvalidRequest, with `why`, unless it holds."""
    if not holds:
        raise InvalidRequest(f"the vector store cannot be used: {why}", field="dataset", remedy="Index the documents again.")


def library() -> Any:
    """FAISS, imported by whoever needs it first; its own type stubs lack what its Python wrappers add."""
    import faiss

    return faiss


def size_of(path: Path) -> int:
    """Bytes of a file, -1 where there is none."""
    return path.stat().st_size if path.is_file() else -1


class FlatFile:
    """An IndexFlatL2 that grows on disk; its vectors never are in memory together."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.count = 0
        self.dimension = 0

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Append vectors (n, d), all of the same d."""
        if not self.dimension:
            self.dimension = vectors.shape[1]
            self._file.write(b"\0" * _FLAT_HEADER)
        if vectors.shape[1] != self.dimension:
            raise RuntimeError(f"vectors of {vectors.shape[1]} dimensions after others of {self.dimension}")
        self._file.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())
        self.count += len(vectors)

    def finish(self) -> None:
        """Write the header, which holds the count."""
        self._file.seek(0)
        self._file.write(_HEADER.pack(b"IxF2", self.dimension, self.count, _UNUSED, _UNUSED, True, 1))
        self._file.write(_LENGTH.pack(self.count * self.dimension))


@contextmanager
def writing_flat(path: Path) -> Iterator[FlatFile]:
    """A new flat file at `path`, complete when the block ends without an error."""
    with path.open("xb") as file:
        flat = FlatFile(file)
        yield flat
        if flat.count:
            flat.finish()


def vectors_of(path: Path, count: int, dimension: int) -> NDArray[np.float32]:
    """The vectors (count, dimension) of a flat or HNSW file, memory-mapped: in both they are the last bytes."""
    return np.memmap(path, dtype="<f4", mode="r", offset=size_of(path) - 4 * count * dimension, shape=(count, dimension))


def open_index(path: Path, kind: str, count: int, dimension: int) -> Any:
    """The FAISS index in `path`, memory-mapped. Raises InvalidRequest unless it is a `kind` of exactly this size."""
    faiss = library()
    size = size_of(path)
    with path.open("rb") as file:
        reader = _Reader(file, path.name, size)
        {"flat": _walk_flat, "hnsw": _walk_hnsw, "ivf_pq": _walk_ivf_pq}[kind](reader, count, dimension)
        check(file.tell() == size, f"{path.name} is damaged")
    # Both flags map the file; FAISS has the one for arrays and the other for inverted lists. A table computed at every start is skipped.
    flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE if kind == "ivf_pq" else faiss.IO_FLAG_MMAP_IFC
    return faiss.read_index(str(path), flags)


class _Reader:
    """Reads numbers and passes over arrays; whatever would go beyond the end is damage."""

    def __init__(self, file: BinaryIO, name: str, size: int) -> None:
        self._file, self._name, self._size = file, name, size

    def numbers(self, form: str) -> tuple[Any, ...]:
        layout = struct.Struct("<" + form)
        content = self._file.read(layout.size)
        self.agree(len(content) == layout.size)
        return layout.unpack(content)

    def header(self, kind: str, count: int, dimension: int, what: str) -> None:
        mark, has_dimension, has_count, _, _, _, metric = self.numbers("4siqqq?i")
        check((mark, metric) == (_KINDS[kind], 1), f"{self._name} is not {what}")
        check((has_dimension, has_count) == (dimension, count), f"{self._name} has another size than its manifest says")

    def array(self, width: int, length: int | None = None) -> int:
        """Pass over an array of items of `width` bytes, of exactly `length` items if that is known; its length."""
        (found,) = self.numbers("q")
        self.agree(found >= 0 and (length is None or found == length))
        self.skip(found * width)
        return int(found)

    def skip(self, size: int) -> None:
        self.agree(self._file.tell() + size <= self._size)
        self._file.seek(size, 1)

    def back(self, size: int) -> None:
        self._file.seek(-size, 1)

    def read(self, size: int) -> bytes:
        return self._file.read(size)

    def agree(self, holds: bool) -> None:
        check(holds, f"{self._name} is damaged")


def _walk_flat(reader: _Reader, count: int, dimension: int) -> None:
    reader.header("flat", count, dimension, "an exact L2 index")
    reader.array(4, count * dimension)


def _walk_hnsw(reader: _Reader, count: int, dimension: int) -> None:
    reader.header("hnsw", count, dimension, "an HNSW index of L2")
    reader.array(8)  # probabilities of the levels
    reader.array(4)  # links up to each level
    reader.array(4, count)  # levels
    reader.array(8, count + 1)  # where each vector's links begin
    reader.back(8)
    (last,) = reader.numbers("q")
    reader.array(4, last)  # links
    entry, top, *_ = reader.numbers("5i")
    reader.agree(0 <= entry < count and 0 <= top < 64)
    _walk_flat(reader, count, dimension)


def _walk_ivf_pq(reader: _Reader, count: int, dimension: int) -> None:
    reader.header("ivf_pq", count, dimension, "an IVF-PQ index of L2")
    lists, _ = reader.numbers("2q")
    reader.agree(0 < lists <= count)
    _walk_flat(reader, lists, dimension)  # the centroids
    direct, mapped = reader.numbers("bq")
    reader.agree(direct == 0 and mapped == 0)
    _, code_size, pq_dimension, subvectors, bits = reader.numbers("?4q")
    reader.agree(pq_dimension == dimension and bits == 8 and code_size == subvectors and 0 < subvectors <= dimension)
    reader.array(4, dimension << bits)
    mark, has_lists, has_code_size, form = reader.numbers("4s2q4s")
    reader.agree((mark, has_lists, has_code_size, form) == (b"ilar", lists, code_size, b"full"))
    reader.numbers("q")
    reader.back(8)
    length = reader.array(8, lists)
    reader.back(8 * length)
    sizes = np.frombuffer(reader.read(8 * length), dtype="<i8")
    reader.agree(bool(((sizes >= 0) & (sizes <= count)).all()) and int(sizes.sum()) == count)
    reader.skip(count * (int(code_size) + 8))
