"""One store out of several that hold different documents: the shards of a build."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InvalidRequest
from ..storage.manifests import FileRecord, records
from . import manifest
from .builder import build_segment
from .compaction import copy_live
from .faiss_files import FlatFile
from .indexes import FLAT_ROWS, Choice
from .manifest import Manifest, SegmentRecord
from .rows import Rows
from .sharing import SEGMENTS, share
from .store import VectorStore

__all__ = ["combine"]


def combine(
    places: Sequence[Path], folder: Path, *, model_digest: str, model: Mapping[str, Any], provenance: Mapping[str, Any], choice: Choice
) -> Manifest:
    """Write a store of the documents of the stores in `places`, each of one segment, into `folder`, which must be absent.

    Each becomes a segment as it is; few documents become one. Raises InvalidRequest where two have an id in common.
    """
    stores = [VectorStore.open(place) for place in places]
    try:
        _require_different_ids(stores)
        folder.mkdir(parents=True)
        dimension, known = stores[0].manifest.dimension, dict[str, FileRecord]()
        if sum(store.manifest.count for store in stores) <= FLAT_ROWS:
            segments = [_merged(places, stores, folder, choice)]
        else:
            segments = [
                _taken(place, store, number, folder, known) for number, (place, store) in enumerate(zip(places, stores, strict=True))
            ]
        about = {"model": {**model, "digest": model_digest}, "provenance": provenance}
        return manifest.write(folder, segments, dimension=dimension, recall=choice.recall, known=known, **about)
    finally:
        for store in stores:
            store.close()


def _require_different_ids(stores: Sequence[VectorStore]) -> None:
    before = None
    for key in heapq.merge(*(_ids(store) for store in stores)):
        if key == before:
            raise InvalidRequest(
                f"two documents have the id {key[:100]!r}",
                field="dataset.loader_kwargs.id_column",
                remedy="Name a column whose values are all different, or leave it out to number the rows.",
            )
        before = key


def _ids(store: VectorStore) -> Iterator[str]:
    """Ids in the order of Python's strings, which is that of UTF-8 bytes, by which SQLite sorts."""
    return (key for (key,) in store.segments[0].connection().execute("SELECT id FROM documents ORDER BY id"))


def _merged(places: Sequence[Path], stores: Sequence[VectorStore], folder: Path, choice: Choice) -> SegmentRecord:
    def add(rows: Rows, flat: FlatFile) -> None:
        for place, store in zip(places, stores, strict=True):
            copy_live(place, store.manifest.segments[0], store.manifest.dimension, rows, flat)

    segment, _ = build_segment(folder, "", add, choice)
    assert segment, "stores have documents"
    return segment


def _taken(place: Path, store: VectorStore, number: int, folder: Path, known: dict[str, FileRecord]) -> SegmentRecord:
    (record,) = store.manifest.segments
    taken = SegmentRecord(**{**vars(record), "folder": f"{SEGMENTS}/shard-{number}"})
    facts = records(store.manifest.files)
    for old, new in zip(record.files, taken.files, strict=True):
        share(place / old, folder / new)
        known[new] = facts[old]
    return taken
