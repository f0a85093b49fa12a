"""Building a store: documents are embedded and written as they stream, then their index is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidRequest
from . import indexes, manifest
from .faiss_files import VECTORS, FlatFile, writing_flat
from .indexes import Choice
from .manifest import Manifest, SegmentRecord
from .rows import DOCUMENTS, Document, Rows, writing

__all__ = ["Embed", "Progress", "build", "build_segment", "embedded", "in_batches"]

Embed = Callable[[Sequence[str]], NDArray[Any]]
Progress = Callable[[int], None]


def build(
    folder: Path,
    documents: Iterable[Document],
    embed: Embed,
    *,
    model_digest: str,
    model: Mapping[str, Any],
    provenance: Mapping[str, Any],
    batch_size: int = 256,
    progress: Progress | None = None,
    choice: Choice | None = None,
) -> Manifest:
    """Embed `documents`, `batch_size` at a time, and write a store into `folder`, which must be empty or absent.

    `embed` gives vectors (n, d); `progress` hears how many documents are done. Documents and vectors stream to the disk; an index
    that is not exact is then built in memory (4 bytes times count times dimension, and its links). Raises InvalidRequest for no
    documents, for an id that occurs twice, and for a recall that the type that was asked for does not reach.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ValueError("a vector store is built into an empty folder")
    choice = choice or Choice()

    def add(rows: Rows, flat: FlatFile) -> None:
        for batch in in_batches(documents, batch_size):
            rows.add(batch)
            flat.add(embedded(embed, batch))
            if progress:
                progress(rows.count)

    segment, dimension = build_segment(folder, "", add, choice)
    assert segment, "a store has documents"
    return manifest.write(
        folder, [segment], dimension=dimension, model={**model, "digest": model_digest}, provenance=provenance, recall=choice.recall
    )


def build_segment(
    store: Path, name: str, add: Callable[[Rows, FlatFile], None], choice: Choice, *, may_be_empty: bool = False
) -> tuple[SegmentRecord | None, int]:
    """A new segment in the folder `name` of `store`, of the documents and vectors that `add` writes; its record and dimension.

    Raises InvalidRequest where it writes none, unless that may be: then there is no record.
    """
    place = store / name
    place.mkdir(parents=True, exist_ok=True)
    with writing(place / DOCUMENTS) as rows, writing_flat(place / VECTORS) as flat:
        add(rows, flat)
    if not rows.count and may_be_empty:
        return None, 0
    if not rows.count:
        raise InvalidRequest("the data set has no documents", field="dataset.path", remedy="Name a data set with at least one row of text.")
    made = indexes.make(place, flat.count, flat.dimension, choice)
    return SegmentRecord.of(name, flat.count, made), flat.dimension


def in_batches(documents: Iterable[Document], size: int) -> Iterator[list[Document]]:
    """Lists of `size` documents, the last of what remains."""
    remaining = iter(documents)
    while batch := list(islice(remaining, size)):
        yield batch


def embedded(embed: Embed, batch: Sequence[Document]) -> NDArray[np.float32]:
    """The vectors (n, d) of a batch. Raises RuntimeError for what is none."""
    vectors = np.ascontiguousarray(embed([document.text for document in batch]), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(batch) or not np.isfinite(vectors).all():
        raise RuntimeError(f"the embedding of {len(batch)} documents is of shape {vectors.shape}, or not finite")
    return vectors
