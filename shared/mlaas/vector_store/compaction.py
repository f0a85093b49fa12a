"""Which segments are merged, and what is copied then: living documents and their vectors, without embedding anything again."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from .faiss_files import FlatFile
from .manifest import SegmentRecord
from .rows import Document, Rows
from .segment import Segment
from .store import VectorStore

__all__ = ["copy_live", "live_documents", "merged_in"]

SEGMENTS_AT_MOST = 8
DEAD_AT_MOST = 1 / 3  # of a store's rows: they take room and are passed by every search
_BATCH = 1024


def merged_in(segments: Sequence[SegmentRecord]) -> list[SegmentRecord]:
    """The segments to merge into one: none while there are few of them and most rows live.

    Else all but the largest, unless they hold half as much as it or much of it is dead: then each row is copied a number of
    times that grows with the logarithm of the store's size only.
    """
    rows, dead = sum(one.count for one in segments), sum(one.deleted for one in segments)
    if dead > DEAD_AT_MOST * rows:
        return list(segments)
    if len(segments) <= SEGMENTS_AT_MOST:
        return []
    largest = max(segments, key=lambda one: one.live)
    others = [one for one in segments if one is not largest]
    return list(segments) if 2 * sum(one.live for one in others) > largest.live else others


def copy_live(folder: Path, record: SegmentRecord, dimension: int, rows: Rows, flat: FlatFile) -> None:
    """Add what lives in a segment of the store in `folder` to a new one."""
    segment = Segment(folder, record, dimension)
    try:
        for batch in _batches(segment):
            found = segment.documents(batch)
            rows.add([found[row] for row in batch])
            flat.add(segment.vectors[batch])
    finally:
        segment.close()


def live_documents(store: VectorStore, without: Collection[str]) -> Iterator[Document]:
    """The documents of a store, but for those with the ids `without`."""
    for segment in store.segments:
        for batch in _batches(segment):
            found = segment.documents(batch)
            yield from (found[row] for row in batch if found[row].id not in without)


def _batches(segment: Segment) -> Iterator[list[int]]:
    live = np.arange(segment.record.count) if segment.live is None else np.flatnonzero(segment.live)
    for first in range(0, len(live), _BATCH):
        yield live[first : first + _BATCH].tolist()
