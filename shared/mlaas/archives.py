"""Archives from strangers, unpacked safely: tar (plain or gzip) and zip.

What is unpacked is counted in bytes as they come, never as a header promises; names must stay inside the folder; links, special
files and encrypted members are refused. Nothing is kept of an archive that is refused.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .errors import InvalidRequest, TooLarge
from .storage.paths import is_safe_name

__all__ = ["EXTENSIONS", "Limits", "check_gzip", "unpack"]

EXTENSIONS = (".zip", ".tar", ".tar.gz", ".tgz")
FIELD = "filename"
_AT_ONCE = 1024**2  # bytes of one read: an extended header that is larger would be held in memory
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, OSError)


@dataclass(frozen=True)
class Limits:
    """What an archive may hold at the most: bytes and files."""

    bytes: int
    files: int = 1000


def unpack(archive: Path, folder: Path, limits: Limits) -> None:
    """Fill the new folder `folder`; where all is in one folder of the archive, with what is in that.

    Raises InvalidRequest saying what is wrong with the archive, TooLarge where it holds more than `limits`.
    """
    staging = folder.with_name(f"{folder.name}.unpacking")
    staging.mkdir()
    try:
        _fill(archive, staging, limits)
        inside = list(staging.iterdir())
        if not inside:
            raise InvalidRequest("the archive is empty", field=FIELD, remedy="Pack the files themselves.")
        (inside[0] if len(inside) == 1 and inside[0].is_dir() else staging).rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_gzip(file: Path, limit: int) -> None:
    """Raise TooLarge if a file compressed with gzip holds more than `limit` bytes, InvalidRequest if it is damaged."""
    with _readable(), gzip.open(file) as opened:
        left = limit
        while piece := opened.read(_AT_ONCE):
            left -= len(piece)
            if left < 0:
                raise _too_large(limit)


def _fill(archive: Path, staging: Path, limits: Limits) -> None:
    left, count, seen = limits.bytes, 0, set[str]()
    with _readable():
        for name, source in _members(archive, limits.bytes):
            count += 1
            if count > limits.files:
                raise TooLarge(f"the archive holds more than {limits.files} files", field=FIELD, remedy="Pack what belongs to it alone.")
            if not is_safe_name(name) or name in seen:
                raise InvalidRequest(
                    "the archive holds a name that leads out of it, that it has twice or that a file may not have",
                    field=FIELD,
                    remedy="Pack the files with plain relative names.",
                )
            seen.add(name)
            target = staging / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as out:
                while piece := source.read(_AT_ONCE):
                    left -= len(piece)
                    if left < 0:
                        raise _too_large(limits.bytes)
                    out.write(piece)


def _members(archive: Path, limit: int) -> Iterator[tuple[str, IO[bytes]]]:
    """Names and contents of the files of an archive, one after the other."""
    lowered = archive.name.lower()
    if lowered.endswith(".zip"):
        yield from _of_zip(archive)
    elif lowered.endswith(EXTENSIONS):
        with gzip.open(archive) if lowered.endswith("gz") else archive.open("rb") as opened:
            yield from _of_tar(_Guarded(opened, 2 * limit + _AT_ONCE))
    else:
        raise InvalidRequest("this is no kind of archive that is known", field=FIELD, remedy=f"Use one of {', '.join(EXTENSIONS)}.")


def _of_zip(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as opened:
        for one in opened.infolist():
            kind = one.external_attr >> 28
            if one.flag_bits & 1 or one.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise InvalidRequest(
                    "the archive is encrypted, or compressed otherwise than by deflate", field=FIELD, remedy="Pack it with deflate."
                )
            if kind not in (0, 4, 8):  # of a system without kinds, a folder, a file
                raise _no_plain_file()
            if not one.is_dir():
                with opened.open(one) as source:
                    yield _plain(one.filename), source


def _of_tar(opened: Any) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(fileobj=opened, mode="r:") as archive:
        for one in archive:
            if one.isdir():
                continue
            source = archive.extractfile(one) if one.isreg() and not one.issparse() else None
            if source is None:
                raise _no_plain_file()
            yield _plain(one.name), source


class _Guarded:
    """A stream of which nobody reads more than a mebibyte at once, nor from beyond `limit`."""

    def __init__(self, opened: Any, limit: int) -> None:
        self._opened, self._limit = opened, limit

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _AT_ONCE or self._opened.tell() + size > self._limit + _AT_ONCE:
            raise _too_large(self._limit)
        return bytes(self._opened.read(size))

    def seek(self, position: int, whence: int = 0) -> int:
        if whence or position > self._limit:
            raise _too_large(self._limit)
        return int(self._opened.seek(position))

    def tell(self) -> int:
        return int(self._opened.tell())


class _readable:  # noqa: N801 - used as a function
    """What libraries raise for damaged archives becomes a refusal; a disk that is full does not."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        if isinstance(error, _DAMAGED) and not (isinstance(error, OSError) and error.errno):
            raise InvalidRequest("the archive is damaged, or not what its name says", field=FIELD, remedy="Pack it anew.") from None


def _plain(name: str) -> str:
    return name.removeprefix("./")


def _no_plain_file() -> InvalidRequest:
    return InvalidRequest("the archive holds a link or a special file", field=FIELD, remedy="Pack plain files.")


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"the archive holds more than {limit} bytes", field=FIELD, remedy="Raise MLAAS_UPLOAD_BYTES, or use the storage directly."
    )
