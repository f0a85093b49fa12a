"""Tables of the files of a folder: each file's size in bytes and sha256, as a `manifest.json` holds them under `files`.

Only the standard library: this is read while a serving process starts.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidRequest
from .paths import is_safe_name

__all__ = [
    "MANIFEST",
    "FileRecord",
    "check_hashes",
    "check_sizes",
    "describe",
    "digest_of",
    "files_of",
    "manifest_files",
    "read_json",
    "read_json_list",
    "records",
    "sha256_of",
    "size_of",
    "sync_file",
    "sync_folder",
    "table",
    "write_durably",
]

MANIFEST = "manifest.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST = 64 * 1024**2  # bytes; the tokenizer.json of a large vocabulary has 17 MB
_REMEDY = "Publish or copy the folder again."


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What a file must be: its size in bytes and its sha256 in hex."""

    size: int
    sha256: str


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises InvalidRequest naming the file where it is missing, too large or something else."""
    document = _read(path)
    if not isinstance(document, dict):
        raise InvalidRequest(f"`{path.name}` is missing or is no JSON object", field="path", remedy=_REMEDY)
    return document


def read_json_list(path: Path) -> list[dict[str, Any]]:
    """The JSON list of objects in a file. Raises InvalidRequest as `read_json` does."""
    document = _read(path)
    if not isinstance(document, list) or not all(isinstance(item, dict) for item in document):
        raise InvalidRequest(f"`{path.name}` is missing or is no JSON list of objects", field="path", remedy=_REMEDY)
    return document


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes()) if path.stat().st_size <= _LARGEST else None
    except (OSError, ValueError, RecursionError):
        return None


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_of(folder: Path) -> list[str]:
    """The names of all files under `folder`, sorted. Raises InvalidRequest for links and special files."""
    names: list[str] = []
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            place = Path(parent, name)
            relative = place.relative_to(folder).as_posix()
            if place.is_symlink() or not (place.is_dir() or place.is_file()) or not is_safe_name(relative):
                raise InvalidRequest(
                    f"`{relative}` is a link, a special file or has an unusable name", field="path", remedy="Use plain files."
                )
            if name in files:
                names.append(relative)
    return sorted(names)


def size_of(folder: Path, names: Iterable[str]) -> int:
    """Bytes of the files `names` of `folder` together."""
    return sum((folder / name).stat().st_size for name in names)


def describe(folder: Path, names: Iterable[str]) -> dict[str, FileRecord]:
    """The records of the files `names` of `folder`; reads every file."""
    return {name: FileRecord((folder / name).stat().st_size, sha256_of(folder / name)) for name in names}


def table(files: Mapping[str, FileRecord]) -> dict[str, dict[str, Any]]:
    """`files` as they are written to JSON."""
    return {name: {"size": record.size, "sha256": record.sha256} for name, record in sorted(files.items())}


def records(files: object) -> dict[str, FileRecord]:
    """The reverse of `table`. Raises InvalidRequest for anything malformed and for names that leave the folder."""
    if not isinstance(files, dict):
        raise InvalidRequest("the manifest's `files` must be an object", field="path", remedy=_REMEDY)
    for name, entry in files.items():
        if not is_safe_name(name):
            raise InvalidRequest("the manifest names a file outside its folder", field="path", remedy=_REMEDY)
        sized = isinstance(entry, dict) and type(entry.get("size")) is int and entry["size"] >= 0
        if not sized or not isinstance(entry.get("sha256"), str) or not _SHA256.fullmatch(entry["sha256"]):
            raise InvalidRequest(f"the manifest's entry of `{name}` must have a size and a sha256", field="path", remedy=_REMEDY)
    return {name: FileRecord(entry["size"], entry["sha256"]) for name, entry in files.items()}


def digest_of(hashes: Mapping[str, str]) -> str:
    """One sha256, in hex, for a set of files: of their names and sha256s."""
    canonical = json.dumps(hashes, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def check_sizes(folder: Path, files: Mapping[str, FileRecord]) -> None:
    """Raises InvalidRequest naming the first file that is missing, not a plain file inside `folder`, or of another size."""
    for name, record in files.items():
        try:
            size = os.stat(folder / name).st_size if (folder / name).is_file() else None
        except OSError:
            size = None
        if size is None:
            raise InvalidRequest(f"`{name}` is named by the manifest but missing", field="path", remedy=_REMEDY)
        if size != record.size:
            raise InvalidRequest(f"`{name}` has {size} bytes where the manifest says {record.size}", field="path", remedy=_REMEDY)


def check_hashes(folder: Path, files: Mapping[str, FileRecord]) -> None:
    """Raises InvalidRequest naming the first file whose sha256 is not that of `files`; reads every file."""
    for name, record in files.items():
        if sha256_of(folder / name) != record.sha256:
            raise InvalidRequest(f"`{name}` does not have the sha256 that its manifest says", field="path", remedy=_REMEDY)


def write_durably(path: Path, content: bytes) -> None:
    """Replace `path` atomically, and make it survive a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Make what is in a file survive a power cut."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def manifest_files(folder: Path) -> dict[str, FileRecord]:
    """The table of `folder`'s manifest.json; empty where there is none, or where it is a manifest of another kind."""
    try:
        document: Any = json.loads((folder / MANIFEST).read_bytes())
        files = document["files"]
        ours = all("sha256" in entry for entry in files.values())
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
    return records(files) if ours else {}
