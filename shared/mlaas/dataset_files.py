"""The files of a data set: one file, a folder of one kind of files (shards), those that a pattern names, or a `datasets` folder.

A `datasets` folder is what Hugging Face's `Dataset.save_to_disk` writes: Arrow files that `state.json` lists. One of a
`DatasetDict` has a folder of that kind for each split, and lists them in `dataset_dict.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import InvalidRequest, NotFound

__all__ = ["EXTENSIONS", "FIELD", "extension", "files", "malformed", "members", "names", "of_split"]

DELIMITED, JSON_LINES = (".csv", ".tsv"), (".jsonl", ".ndjson")
_TEXT = (*DELIMITED, *JSON_LINES)
EXTENSIONS = (*_TEXT, *(f"{suffix}.gz" for suffix in _TEXT), ".parquet", ".arrow")
FIELD = "dataset"
INFO, STATE, SPLITS = "dataset_info.json", "state.json", "dataset_dict.json"
DEFAULT_SPLIT = "train"
_LARGEST = 16 * 1024**2  # bytes of a list of files


def files(place: Path, extensions: tuple[str, ...] = EXTENSIONS) -> list[Path]:
    """The data files of `place`, in the natural order of their names: part-2 before part-10. They are of one kind.

    `place` is a file, a folder, or a folder joined with a pattern. Raises InvalidRequest, NotFound.
    """
    if place.is_file():
        extension(place, extensions)
        return [place]
    found = members(place)
    if not _is_saved(place):
        found = {name: file for name, file in found.items() if _is_data(file.name, extensions)}
    if not found:
        what = "the folder holds" if place.is_dir() else "the pattern matches"
        raise InvalidRequest(f"{what} no data file", field=f"{FIELD}.path", remedy=f"Its files must end in {', '.join(extensions)}.")
    shards = [found[name] for name in sorted(found, key=_natural)]
    _check_kinds(shards, extensions)
    return shards


def members(place: Path) -> dict[str, Path]:
    """The files of a folder, or those that match where `place` ends with a pattern, by their names relative to the folder.

    Of a `datasets` folder, those that it lists. Raises NotFound where there is no folder, InvalidRequest for a link that leads out of it.
    """
    if place.is_dir():
        home = place
        found = _listed(place) if _is_saved(place) else [file for file in place.iterdir() if file.is_file()]
    else:
        home = next(parent for parent in place.parents if parent.is_dir())
        pattern = place.relative_to(home).as_posix()
        if not re.search(r"[*?[]", pattern):
            raise NotFound("the data set does not exist", field=f"{FIELD}.path", remedy="Name a file, or a folder of files.")
        found = [file for file in home.glob(pattern) if file.is_file() and not _is_hidden(file.relative_to(home))]
    if any(not file.resolve().is_relative_to(home.resolve()) for file in found):
        raise InvalidRequest("the folder holds a link that leads out of it", field=f"{FIELD}.path", remedy="Put the file itself there.")
    return {file.relative_to(home).as_posix(): file for file in found}


def names(place: Path) -> list[str]:
    """The names of the file or of the `members` that are not hidden."""
    return [place.name] if place.is_file() else [file.name for file in members(place).values() if not file.name.startswith((".", "_"))]


def of_split(place: Path, split: str | None) -> Path:
    """The folder of `split`, by default "train", where `place` has splits; else `place`. Raises InvalidRequest naming those that it has."""
    if not (place / SPLITS).is_file():
        if split is not None:
            raise InvalidRequest(
                "the data set has no splits", field="split", remedy=f"Leave `split` out; only a folder with a {SPLITS} has splits."
            )
        return place
    splits = _strings(place / SPLITS, lambda document: document["splits"])
    wanted = split or DEFAULT_SPLIT
    if wanted not in splits:
        raise InvalidRequest(f"the data set has no split `{wanted[:100]}`", field="split", remedy=f"Its splits are: {', '.join(splits)}.")
    return place / wanted


def extension(file: Path, extensions: tuple[str, ...] = EXTENSIONS) -> str:
    """The kind of `file`: its extension, without `.gz`. Raises InvalidRequest for any other than `extensions`."""
    known = next((suffix for suffix in extensions if file.name.lower().endswith(suffix)), None)
    if known is None:
        raise InvalidRequest(
            f"{file.name}: not a known kind of data file",
            field=f"{FIELD}.path",
            remedy=f"Its name must end in one of {', '.join(extensions)}.",
        )
    return known.removesuffix(".gz")


def malformed(file: Path, line: int, why: str, remedy: str) -> InvalidRequest:
    """What is to be raised for a line that cannot be read."""
    return InvalidRequest(f"{file.name}, line {line}: {why}", field=f"{FIELD}.path", remedy=remedy)


def _is_saved(place: Path) -> bool:
    """Whether `Dataset.save_to_disk` wrote this folder."""
    return (place / STATE).is_file() and (place / INFO).is_file()


def _listed(folder: Path) -> list[Path]:
    """The Arrow files that a `datasets` folder lists."""
    names = _strings(folder / STATE, lambda document: [entry["filename"] for entry in document["_data_files"]])
    found = [folder / name for name in names]
    gone = next((file.name for file in found if not file.is_file()), None)
    if gone is not None:
        raise InvalidRequest(f"{gone}: {STATE} lists it, but it is not there", field=f"{FIELD}.path", remedy="Copy the whole folder again.")
    return found


def _strings(file: Path, listed: Any) -> list[str]:
    """The names that a file of `datasets` lists. Raises InvalidRequest where it lists none, or paths."""
    try:
        names = listed(json.loads(file.read_bytes())) if file.stat().st_size <= _LARGEST else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise InvalidRequest(f"{file.name}: not as `datasets` writes it", field=f"{FIELD}.path", remedy="Save the data set again.")
    return names


def _check_kinds(shards: Sequence[Path], extensions: tuple[str, ...]) -> None:
    kind = _kind(shards[0], extensions)
    other = next((file for file in shards if _kind(file, extensions) != kind), None)
    if other is not None:
        raise InvalidRequest(
            f"{other.name}: it is of another kind than {shards[0].name}",
            field=f"{FIELD}.path",
            remedy=f"Put files of one kind into a folder, or choose some by a pattern, such as `*{kind}`.",
        )


def _kind(file: Path, extensions: tuple[str, ...]) -> str:
    kind = extension(file, extensions)
    return JSON_LINES[0] if kind in JSON_LINES else kind


def _is_data(name: str, extensions: tuple[str, ...]) -> bool:
    return name.lower().endswith(extensions) and not name.startswith((".", "_"))


def _is_hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts runs of digits by their number."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), part) if at % 2 else (1, 0, part) for at, part in enumerate(parts)]
