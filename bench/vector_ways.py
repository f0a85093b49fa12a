"""The ways to index vectors that vector_search.py compares: ours, and faiss, hnswlib and usearch by themselves.

Every graph has the same links and width of construction, those of our own. FAISS, hnswlib and usearch hold vectors and row numbers only;
our store holds the documents too, and answers with them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from vector_data import DIMENSION, K, documents

__all__ = ["WAYS", "Opened", "Way"]

EFFORTS = (10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 768, 1024, 2048)
_ROWS = 16_384

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]
Say = Callable[[int], None]


class Opened(Protocol):
    """An index that can be searched. `efforts` are what it can be given, least first; none where it knows its own."""

    efforts: Sequence[Any]

    def give(self, effort: Any) -> None:
        """Search with that effort from now on."""

    def search(self, queries: Vectors, threads: int) -> Any:
        """Whatever the library answers for the K nearest of each query."""

    def rows(self, answer: Any) -> Rows:
        """The rows (n, K) of such an answer."""


@dataclass(frozen=True)
class Way:
    """How one of them is built and opened; `told` says what it is at a number of vectors, `needs` what must be installed."""

    needs: str
    told: Callable[[int], str]
    build: Callable[[Path, Vectors, int, Say], dict[str, Any]]
    open: Callable[[Path, int], Opened]


def _chunks(vectors: Vectors, say: Say) -> Iterator[tuple[int, Vectors]]:
    for first in range(0, len(vectors), _ROWS):
        yield first, np.array(vectors[first : first + _ROWS])
        say(min(first + _ROWS, len(vectors)))


def _graph() -> tuple[int, int]:
    from mlaas.vector_store import hnsw

    return hnsw.LINKS, hnsw.CONSTRUCTION


def _same_graph(count: int) -> str:
    return "HNSW, M={}, ef_construction={}".format(*_graph())


# Ours: the builder that an index job calls.


def _build_ours(index_type: str | None) -> Callable[[Path, Vectors, int, Say], dict[str, Any]]:
    def build(folder: Path, vectors: Vectors, seed: int, say: Say) -> dict[str, Any]:
        from mlaas import vector_store
        from mlaas.vector_store import indexes

        done, spent = 0, 0.0

        def embed(texts: Sequence[str]) -> Vectors:
            nonlocal done
            done += len(texts)
            return np.array(vectors[done - len(texts) : done])

        make = indexes.make

        def timed(*given: Any) -> Any:
            nonlocal spent
            began = time.perf_counter()
            made = make(*given)
            spent = time.perf_counter() - began
            return made

        indexes.make = timed
        texts = (vector_store.Document(*one) for one in documents(len(vectors), seed))
        choice = vector_store.Choice(type=index_type)
        known = vector_store.build(
            folder / "store", texts, embed, model_digest="0" * 64, model={}, provenance={"synthetic": seed}, progress=say, choice=choice
        )
        segment = known.segments[0]
        return {
            "index": segment.index_type,
            "parameters": dict(segment.parameters),
            "recall_in_manifest": known.measured_recall,
            "index_and_tuning_s": round(spent, 2),
            "documents_mb": round((folder / "store" / "documents.sqlite").stat().st_size / 1e6, 1),
        }

    return build


class _Ours:
    """Answers with documents: id, text, metadata and distance."""

    efforts = ()

    def __init__(self, folder: Path, count: int) -> None:
        from mlaas.vector_store import VectorStore

        self.store = VectorStore.open(folder / "store")

    def give(self, effort: Any) -> None:
        raise NotImplementedError("its effort is in its manifest")

    def search(self, queries: Vectors, threads: int) -> Any:
        _faiss(threads)
        return self.store.search(queries, K)

    def search_index(self, queries: Vectors, threads: int) -> Any:
        """The same without documents, as the other ways do it."""
        _faiss(threads)
        return self.store.segments[0].search(queries, K)

    def rows(self, answer: Any) -> Rows:
        if isinstance(answer, tuple):
            return np.asarray(answer[1])
        found = np.full((len(answer), K), -1, dtype=np.int64)
        for number, near in enumerate(answer):
            found[number, : len(near)] = [int(one.id.removeprefix("doc-")) for one in near]
        return found


# FAISS by itself.


def _faiss(threads: int = 0) -> Any:
    import faiss

    if threads and faiss.omp_get_max_threads() != threads:
        faiss.omp_set_num_threads(threads)
    return faiss


def _same_type(count: int) -> str:
    from mlaas.vector_store import Choice

    return Choice().for_rows(count)


def _told_same(count: int) -> str:
    from mlaas.vector_store import ivf_pq

    kinds = {"flat": "IndexFlatL2", "hnsw": f"IndexHNSWFlat, {_same_graph(count)}"}
    return kinds.get(_same_type(count)) or f"IndexIVFPQ of {ivf_pq.cells_of(count)} cells, refined by IndexRefineFlat"


def _build_same(folder: Path, vectors: Vectors, seed: int, say: Say) -> dict[str, Any]:
    faiss, kind = _faiss(), _same_type(len(vectors))
    if kind == "hnsw":
        return _build_graph(folder, vectors, seed, say)
    if kind == "flat":
        index = faiss.IndexFlatL2(DIMENSION)
    else:
        from mlaas.vector_store import ivf_pq

        codes = ivf_pq.empty(len(vectors), DIMENSION)
        index = faiss.IndexRefineFlat(codes)
        index.train(np.array(vectors[ivf_pq.training_rows(len(vectors))]))
    for _, some in _chunks(vectors, say):
        index.add(some)
    faiss.write_index(index, str(folder / "index"))
    return {}


def _build_graph(folder: Path, vectors: Vectors, seed: int, say: Say) -> dict[str, Any]:
    faiss, (links, width) = _faiss(), _graph()
    index = faiss.IndexHNSWFlat(DIMENSION, links)
    index.hnsw.efConstruction = width
    for _, some in _chunks(vectors, say):
        index.add(some)
    faiss.write_index(index, str(folder / "index"))
    return {}


class _Faiss:
    def __init__(self, folder: Path, count: int) -> None:
        faiss = _faiss()
        self.index = faiss.read_index(str(folder / "index"))
        self.params: Any = None
        self.efforts: Sequence[Any] = EFFORTS
        if isinstance(self.index, faiss.IndexFlat):
            self.efforts = ()
        elif not isinstance(self.index, faiss.IndexHNSW):
            from mlaas.vector_store import ivf_pq

            self.efforts = [dict(one) for one in ivf_pq.efforts(count)]
            self.inner = faiss.downcast_index(self.index.base_index)

    def give(self, effort: Any) -> None:
        faiss = _faiss()
        if isinstance(effort, int):
            self.params = faiss.SearchParametersHNSW(efSearch=effort)
            return
        cells = faiss.SearchParametersIVF(nprobe=effort["probes"])
        self.params = faiss.IndexRefineSearchParameters(k_factor=effort["candidates"], base_index_params=cells)

    def search(self, queries: Vectors, threads: int) -> Any:
        _faiss(threads)
        return self.index.search(queries, K, params=self.params)

    def rows(self, answer: Any) -> Rows:
        return np.asarray(answer[1])


# hnswlib and usearch.


def _build_hnswlib(folder: Path, vectors: Vectors, seed: int, say: Say) -> dict[str, Any]:
    import hnswlib

    links, width = _graph()
    index = hnswlib.Index(space="l2", dim=DIMENSION)
    index.init_index(max_elements=len(vectors), M=links, ef_construction=width, random_seed=seed)
    for first, some in _chunks(vectors, say):
        index.add_items(some, np.arange(first, first + len(some)))
    index.save_index(str(folder / "index"))
    return {}


class _Hnswlib:
    efforts = EFFORTS

    def __init__(self, folder: Path, count: int) -> None:
        import hnswlib

        self.index = hnswlib.Index(space="l2", dim=DIMENSION)
        self.index.load_index(str(folder / "index"))

    def give(self, effort: Any) -> None:
        self.index.set_ef(effort)

    def search(self, queries: Vectors, threads: int) -> Any:
        return self.index.knn_query(queries, k=K, num_threads=threads)

    def rows(self, answer: Any) -> Rows:
        return np.asarray(answer[0]).astype(np.int64)


def _build_usearch(folder: Path, vectors: Vectors, seed: int, say: Say) -> dict[str, Any]:
    from usearch.index import Index

    links, width = _graph()
    index = Index(ndim=DIMENSION, metric="l2sq", dtype="f32", connectivity=links, expansion_add=width)
    for first, some in _chunks(vectors, say):
        index.add(np.arange(first, first + len(some)), some)
    index.save(str(folder / "index"))
    return {}


class _Usearch:
    efforts = EFFORTS

    def __init__(self, folder: Path, count: int) -> None:
        from usearch.index import Index

        self.index = Index.restore(str(folder / "index"), view=True)

    def give(self, effort: Any) -> None:
        self.index.expansion_search = effort

    def search(self, queries: Vectors, threads: int) -> Any:
        return self.index.search(queries, K, threads=threads)

    def rows(self, answer: Any) -> Rows:
        keys = np.asarray(answer.keys).astype(np.int64)
        return keys.reshape(-1, K)


WAYS: Mapping[str, Way] = {
    "ours": Way("mlaas", lambda count: f"{_same_type(count)}, chosen by size", _build_ours(None), _Ours),
    "ours hnsw": Way("mlaas", _same_graph, _build_ours("hnsw"), _Ours),
    "faiss same": Way("faiss", _told_same, _build_same, _Faiss),
    "faiss hnsw": Way("faiss", lambda count: f"IndexHNSWFlat, {_same_graph(count)}", _build_graph, _Faiss),
    "hnswlib": Way("hnswlib", _same_graph, _build_hnswlib, _Hnswlib),
    "usearch": Way("usearch", _same_graph, _build_usearch, _Usearch),
}
