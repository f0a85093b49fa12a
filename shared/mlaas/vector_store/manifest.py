"""A store's manifest: how many documents, in which segments, embedded by which model, and what each file must be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..precision import PUBLISHED
from ..storage import manifests
from ..storage.manifests import MANIFEST, FileRecord
from .faiss_files import INDEX, VECTORS, check, size_of
from .indexes import INDEX_TYPES, Made
from .rows import DOCUMENTS, plain

__all__ = ["DELETED", "Manifest", "SegmentRecord", "read", "write"]

FORMAT_VERSION = 2
METRIC = "l2"
DELETED = "deleted.rows"
MAX_MANIFEST_BYTES = 16 * 1024**2
_NAMES = {"flat": (INDEX, DOCUMENTS), "hnsw": (INDEX, DOCUMENTS), "ivf_pq": (INDEX, VECTORS, DOCUMENTS)}


@dataclass(frozen=True, kw_only=True)
class SegmentRecord:
    """One segment: its folder (`` for the store's own), its rows, those of them that are deleted, and its index.

    `recall` is that at 10 against an exact search, measured with `queries` made of its vectors when it was built.
    """

    folder: str
    count: int
    deleted: int = 0
    index_type: str = "flat"
    parameters: Mapping[str, int] = field(default_factory=dict)
    recall: float = 1.0
    queries: int = 0

    @classmethod
    def of(cls, folder: str, count: int, made: Made) -> SegmentRecord:
        """The record of a segment that has just been built."""
        return cls(folder=folder, count=count, index_type=made.type, parameters=made.parameters, recall=made.recall, queries=made.queries)

    @property
    def live(self) -> int:
        """Rows that are not deleted."""
        return self.count - self.deleted

    @property
    def files(self) -> tuple[str, ...]:
        """The names of its files in the store."""
        names = _NAMES[self.index_type] + ((DELETED,) if self.deleted else ())
        return tuple(f"{self.folder}/{name}" if self.folder else name for name in names)

    def is_sound(self) -> bool:
        """Whether its numbers can be meant."""
        numbers = (self.count, self.deleted, self.queries)
        return (
            all(type(number) is int and number >= 0 for number in numbers)
            and self.deleted <= self.count
            and self.count > 0
            and self.index_type in INDEX_TYPES
            and set(self.parameters) == set(next(INDEX_TYPES[self.index_type].efforts(self.count)))
            and all(type(value) is int and value > 0 for value in self.parameters.values())
        )


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a store holds. `model` says which model embedded it (`digest`, and its name and version or its path).

    `count` is the number of documents, `recall` the least that was asked for. A store of format 1 is one exact segment.
    """

    count: int
    dimension: int
    model: dict[str, Any]
    provenance: dict[str, Any]
    files: dict[str, dict[str, Any]]
    digest: str
    segments: tuple[SegmentRecord, ...]
    recall: float = 1.0
    metric: str = METRIC
    format_version: int = FORMAT_VERSION

    @property
    def model_digest(self) -> str:
        """The digest of the model that embedded the documents."""
        return str(self.model["digest"])

    @property
    def variant(self) -> str:
        """Its variant that did."""
        return str(self.model.get("variant") or PUBLISHED)

    @property
    def measured_recall(self) -> float:
        """Recall at 10 as it was measured, of all segments by their rows."""
        rows = sum(segment.count for segment in self.segments)
        return round(sum(segment.recall * segment.count for segment in self.segments) / rows, 4)

    @property
    def index_types(self) -> list[str]:
        """The types of its indexes, that of the largest segment first."""
        return list(dict.fromkeys(one.index_type for one in sorted(self.segments, key=lambda one: -one.count)))


def write(
    folder: Path,
    segments: Sequence[SegmentRecord],
    *,
    dimension: int,
    model: Mapping[str, Any],
    provenance: Mapping[str, Any],
    recall: float,
    known: Mapping[str, FileRecord] | None = None,
) -> Manifest:
    """Make the files of `segments` durable and write the manifest of the store in `folder`; it is a store from then on.

    `known` are files whose records are known, and that are on the disk already.
    """
    records = {}
    for name in (name for segment in segments for name in segment.files):
        if known and name in known:
            records[name] = known[name]
            continue
        manifests.sync_file(folder / name)
        records.update(manifests.describe(folder, [name]))
    files = manifests.table(records)
    manifest = Manifest(
        count=sum(segment.live for segment in segments),
        dimension=dimension,
        model=dict(model),
        provenance=dict(provenance),
        files=files,
        digest=_digest(files, segments),
        segments=tuple(segments),
        recall=recall,
    )
    manifests.write_durably(folder / MANIFEST, json.dumps(plain(asdict(manifest)), ensure_ascii=False, indent=2).encode())
    return manifest


def read(folder: Path) -> Manifest:
    """The manifest of the store in `folder`. Raises InvalidRequest where there is none, or it is not sound."""
    path = folder / MANIFEST
    check(0 < size_of(path) <= MAX_MANIFEST_BYTES, f"it has no {MANIFEST}: it is not a vector store, or its build did not end")
    try:
        content = json.loads(path.read_bytes())
        version = content["format_version"]
        if version == 1:
            content["segments"] = [{"folder": "", "count": content["count"]}]
        manifest = Manifest(**{**content, "segments": tuple(SegmentRecord(**one) for one in content["segments"])})
        sound = _is_sound(manifest)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        version, sound = FORMAT_VERSION, False
    check(version in (1, FORMAT_VERSION), f"its format is version {version!r:.20}, and this release reads versions 1 and {FORMAT_VERSION}")
    check(sound, f"its {MANIFEST} is damaged")
    return manifest


def _is_sound(manifest: Manifest) -> bool:
    names = [name for segment in manifest.segments for name in segment.files]
    segments = manifest.segments if manifest.format_version > 1 else None
    return (
        all(type(number) is int and number > 0 for number in (manifest.count, manifest.dimension))
        and isinstance(manifest.model["digest"], str)
        and len(names) == len(set(names))
        and all(segment.is_sound() for segment in manifest.segments)
        and set(names) <= set(manifests.records(manifest.files))
        and manifest.count == sum(segment.live for segment in manifest.segments)
        and manifest.digest == _digest(manifest.files, segments)
    )


def _digest(files: Mapping[str, Mapping[str, Any]], segments: Sequence[SegmentRecord] | None) -> str:
    """Of the files, and from format 2 on of how they are searched."""
    hashes = {name: facts["sha256"] for name, facts in files.items()}
    if segments is not None:
        hashes["segments"] = json.dumps([plain(asdict(one)) for one in segments], sort_keys=True)
    return manifests.digest_of(hashes)
