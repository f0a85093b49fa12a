"""An open store: the nearest documents of all its segments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from .. import timing
from ..contracts import Neighbour, SearchRequest
from ..errors import InvalidRequest
from . import filters, fusion, manifest
from .faiss_files import check, size_of
from .filters import Filter
from .fusion import Place
from .manifest import Manifest
from .rows import Document
from .segment import Segment

__all__ = ["VectorStore"]

_NEIGHBOURS = TypeAdapter(list[Neighbour])  # made together they cost half as much as one by one


class VectorStore:
    """An open store. Any number of threads may search it at once; `close` ends their database connections."""

    def __init__(self, manifest: Manifest, segments: Sequence[Segment]) -> None:
        self.manifest = manifest
        self.segments = segments

    @classmethod
    def open(cls, folder: Path) -> VectorStore:
        """The store in `folder`, memory-mapped. Raises InvalidRequest where it is none, or is not what its manifest says."""
        known = manifest.read(folder)
        for name in (name for record in known.segments for name in record.files):
            check(size_of(folder / name) == known.files[name]["size"], f"{name} has another size than its manifest says")
        store = cls(known, [Segment(folder, record, known.dimension) for record in known.segments])
        try:
            for segment in store.segments:
                segment.check()
        except InvalidRequest:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Close the database connections of all threads; no search may be under way."""
        for segment in self.segments:
            segment.close()

    def head(self, count: int) -> list[Document]:
        """Some documents of the store, `count` at the most: the first of each segment."""
        found: list[Document] = []
        for segment in self.segments:
            rows = range(segment.record.count) if segment.live is None else np.flatnonzero(segment.live).tolist()
            found += [document for _, document in sorted(segment.documents(rows[: count - len(found)]).items())]
        return found

    def require_model(self, digest: str) -> None:
        """Raise InvalidRequest unless the model with `digest` embedded this store: other models' vectors mean something else."""
        if digest == self.manifest.model_digest:
            return
        name = self.manifest.model.get("name") or self.manifest.model.get("path")
        raise InvalidRequest(
            f"the index was built by another model: {self.manifest.model_digest[:12]}, the request's is {digest[:12]}",
            field="model",
            remedy=f"Leave `model` out to use the index's own{f' ({name})' if name else ''}, or index the documents again with this model.",
        )

    def answer(self, request: SearchRequest, texts: Sequence[str], vectors: NDArray[Any]) -> list[list[Neighbour]]:
        """What `request` asks for each of `texts`, whose embeddings are `vectors` (n, d): by distance, or fused with a lexical search."""
        condition = filters.of(request.filter)
        if condition:
            for segment in self.segments:
                segment.require("fields", "filter")
        if request.hybrid is None:
            return self.search(vectors, request.top_k, request.score_threshold, condition)
        queries = self._queries(vectors)
        with timing.span("search"):
            near = self._nearest(queries, max(request.hybrid.candidates, request.top_k), condition)
            fused = (
                fusion.fused(self.segments, places, query, text, request.hybrid, condition)
                for places, query, text in zip(near, queries, texts, strict=True)
            )
            return self._neighbours(fused, request.score_threshold, request.top_k)

    def search(
        self, vectors: NDArray[Any], top_k: int, score_threshold: float | None = None, condition: Filter | None = None
    ) -> list[list[Neighbour]]:
        """For each of `vectors` (n, d), its `top_k` nearest documents, nearest first, none farther than `score_threshold`.

        The score is the L2 (Euclidean) distance itself, the square root of what FAISS returns: 0 for the same vector, lower is
        nearer, at most 2 between normalised vectors. A store of fewer than `top_k` documents gives all of them. `condition`
        leaves out documents by their metadata.
        """
        queries = self._queries(vectors)
        with timing.span("search"):
            return self._neighbours(self._nearest(queries, top_k, condition), score_threshold, top_k)

    def _queries(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        queries = np.ascontiguousarray(vectors, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.manifest.dimension:
            raise InvalidRequest(
                f"the model's vectors do not fit the index, which has {self.manifest.dimension} dimensions",
                field="model",
                remedy="Search with the model that built the index.",
            )
        if not np.isfinite(queries).all():
            raise RuntimeError("the query's embedding is not finite")
        return queries

    def _nearest(self, queries: NDArray[np.float32], k: int, condition: Filter | None) -> list[list[Place]]:
        found: list[list[Place]] = [[] for _ in queries]
        for number, segment in enumerate(self.segments):
            squares, rows = segment.search(queries, k, condition)
            distances = np.sqrt(np.maximum(squares, 0), dtype=np.float64).tolist()
            for places, *one in zip(found, distances, rows.tolist(), strict=True):
                places += [Place(distance, number, row) for distance, row in zip(*one, strict=True) if row >= 0]
        return [sorted(places)[:k] for places in found]

    def _neighbours(self, found: Iterable[Sequence[Place]], threshold: float | None, top_k: int) -> list[list[Neighbour]]:
        """The documents at the places of each query: those of all queries are fetched at once."""
        near = [[place for place in places if threshold is None or place.distance <= threshold][:top_k] for places in found]
        wanted: dict[int, set[int]] = {}
        for place in chain.from_iterable(near):
            wanted.setdefault(place.segment, set()).add(place.row)
        documents = {number: self.segments[number].documents(rows) for number, rows in wanted.items()}
        return [_NEIGHBOURS.validate_python([_neighbour(documents[one.segment][one.row], one) for one in places]) for places in near]


def _neighbour(document: Document, place: Place) -> dict[str, Any]:
    return {"id": document.id, "score": place.distance, "text": document.text, "metadata": document.metadata, "fusion_score": place.fusion}
