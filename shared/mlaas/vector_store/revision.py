"""Changing a store by its documents' ids: another store, which shares every file that stays.

What is new or changed becomes a segment of its own, what is gone is marked in the segment that holds it. Small segments are
merged once there are many, and everything once much of it is gone, so that a search never visits more than a few.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidRequest
from ..precision import PUBLISHED
from ..storage.manifests import FileRecord, describe, digest_of, records
from . import manifest
from .builder import Embed, Progress, build, build_segment, embedded, in_batches
from .compaction import copy_live, live_documents, merged_in
from .faiss_files import FlatFile
from .indexes import Choice
from .manifest import DELETED, Manifest, SegmentRecord
from .rows import Document, Rows, plain
from .sharing import SEGMENTS, share
from .store import VectorStore

__all__ = ["Changes", "update"]

_NEW = f"{SEGMENTS}/new"
_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What an update asks for: documents that are added or replaced, by id (asked for once or twice), and ids that are removed."""

    documents: Callable[[], Iterable[Document]]
    deleted: Sequence[str] = ()
    compact: bool = False


def update(
    base: Path,
    folder: Path,
    changes: Changes,
    embed: Embed,
    *,
    model_digest: str,
    model: Mapping[str, Any],
    provenance: Mapping[str, Any],
    choice: Choice,
    progress: Progress | None = None,
) -> Manifest | None:
    """Write the store of `base` with `changes` into `folder`, which must be empty or absent; None where nothing changes.

    Only texts that are new are embedded. If another model than `model_digest` embedded the base, or another variant of it, all that
    stays is embedded again. Raises InvalidRequest where an id occurs twice, or no document is left.
    """
    store = VectorStore.open(base)
    folder.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = {"model": {**model, "digest": model_digest}, "provenance": provenance}
    try:
        if (store.manifest.model_digest, store.manifest.variant) != (model_digest, model.get("variant") or PUBLISHED):
            gone = {*changes.deleted, *(document.id for document in changes.documents())}
            everything = chain(live_documents(store, gone), changes.documents())
            return build(
                folder, everything, embed, model_digest=model_digest, model=model, provenance=provenance, progress=progress, choice=choice
            )
        return _Update(store, base, folder, choice, embed, progress).run(changes, about)
    finally:
        store.close()


@dataclass
class _Update:
    store: VectorStore
    base: Path
    folder: Path
    choice: Choice
    embed: Embed
    progress: Progress | None
    dead: dict[int, set[int]] = field(default_factory=dict)
    known: dict[str, FileRecord] = field(default_factory=dict)

    def run(self, changes: Changes, about: Mapping[str, Any]) -> Manifest | None:
        added = self._added(changes)
        if not (added or self.dead or changes.compact):
            return None
        kept = [record for number, one in enumerate(self.store.segments) if (record := self._marked(number, one.record)).live]
        segments = [*kept, *added]
        if not segments:
            raise InvalidRequest("the update leaves no document in the index", field="update", remedy="Keep or add at least one document.")
        doomed = segments if changes.compact else merged_in(segments)
        if doomed:
            segments = [one for one in segments if one not in doomed] + [self._merged(doomed)]
        written = manifest.write(
            self.folder, segments, dimension=self.store.manifest.dimension, recall=self.choice.recall, known=self.known, **about
        )
        return None if written.digest == self.store.manifest.digest else written

    def _added(self, changes: Changes) -> list[SegmentRecord]:
        """The segment of what is new or changed, if anything is; what it replaces, and what is deleted, is dead then."""
        seen: set[str] = set()

        def add(rows: Rows, flat: FlatFile) -> None:
            done = 0
            for batch in in_batches(changes.documents(), _BATCH):
                self._add(rows, flat, batch, seen)
                done += len(batch)
                if self.progress:
                    self.progress(done)

        segment, _ = build_segment(self.folder, _NEW, add, self.choice, may_be_empty=True)
        for key in changes.deleted:
            if key not in seen and (place := self._place(key)):
                self.dead.setdefault(place[0], set()).add(place[1])
        if segment is None:
            shutil.rmtree(self.folder / _NEW)
            return []
        return [self._named(segment)]

    def _add(self, rows: Rows, flat: FlatFile, batch: Sequence[Document], seen: set[str]) -> None:
        fresh: list[Document] = []
        vectors: list[Any] = []
        for document in batch:
            if document.id in seen:
                raise InvalidRequest(
                    f"two documents have the id {document.id[:100]!r}",
                    field="dataset.loader_kwargs.id_column",
                    remedy="Name a column whose values are all different.",
                )
            seen.add(document.id)
            place = self._place(document.id)
            before = self.store.segments[place[0]].documents([place[1]])[place[1]] if place else None
            if before and (before.text, before.metadata) == (document.text, plain(document.metadata)):
                continue
            if place:
                self.dead.setdefault(place[0], set()).add(place[1])
            fresh.append(document)
            vectors.append(self.store.segments[place[0]].vectors[place[1]] if place and before and before.text == document.text else None)
        unknown = [number for number, vector in enumerate(vectors) if vector is None]
        if unknown:
            for number, vector in zip(unknown, embedded(self.embed, [fresh[number] for number in unknown]), strict=True):
                vectors[number] = vector
        if fresh:
            rows.add(fresh)
            flat.add(np.stack(vectors))

    def _place(self, key: str) -> tuple[int, int] | None:
        found = ((number, segment.row_of(key)) for number, segment in enumerate(self.store.segments))
        return next(((number, row) for number, row in found if row is not None), None)

    def _marked(self, number: int, record: SegmentRecord) -> SegmentRecord:
        """The segment as it stays: its files are shared, and its deleted rows, with those of this update, written."""
        live = self.store.segments[number].live
        deleted = {*self.dead.get(number, ()), *(np.flatnonzero(~live).tolist() if live is not None else ())}
        if len(deleted) == record.count:
            return replace(record, deleted=record.count)
        for name in replace(record, deleted=0).files:
            share(self.base / name, self.folder / name)
            self.known[name] = records(self.store.manifest.files)[name]
        if deleted:
            np.array(sorted(deleted), dtype="<u4").tofile(self.folder / record.folder / DELETED)
        return replace(record, deleted=len(deleted))

    def _merged(self, doomed: Sequence[SegmentRecord]) -> SegmentRecord:
        """One segment of what lives in others, whose files are then removed from the new store; nothing is embedded."""

        def add(rows: Rows, flat: FlatFile) -> None:
            for record in doomed:
                copy_live(self.folder, record, self.store.manifest.dimension, rows, flat)

        segment, _ = build_segment(self.folder, _NEW, add, self.choice)
        assert segment, "segments without living rows are no part of a store"
        for record in doomed:
            for name in record.files:
                (self.folder / name).unlink()
                self.known.pop(name, None)
            if record.folder:
                (self.folder / record.folder).rmdir()
        return self._named(segment)

    def _named(self, segment: SegmentRecord) -> SegmentRecord:
        """The segment under a name that says what is in it, so that the same one has the same name in every version."""
        place = self.folder / segment.folder
        files = describe(self.folder, segment.files)
        name = f"{SEGMENTS}/{digest_of({Path(file).name: record.sha256 for file, record in files.items()})[:16]}"
        place.rename(self.folder / name)
        return replace(segment, folder=name)
