"""Vector stores: a FAISS index, the documents it points to, and a manifest that says what they are.

A store is a folder: `index.faiss` (exact L2 search), `documents.sqlite` (a document's rowid is its row in the index) and
`manifest.json`, written last, so that a folder without one is no store. A store never changes once it is built. Nothing in
it is unpickled, and every size is checked against the manifest before a file is read.
"""

from __future__ import annotations

import json
import math
import sqlite3
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from . import timing
from .contracts import Neighbour
from .errors import InvalidRequest
from .storage import manifests
from .storage.manifests import MANIFEST

__all__ = ["Document", "Manifest", "VectorStore", "build"]

FORMAT_VERSION = 1
METRIC = "l2"
INDEX, DOCUMENTS = "index.faiss", "documents.sqlite"
MAX_MANIFEST_BYTES = 1024**2
_SCHEMA = "CREATE TABLE documents (row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, text TEXT NOT NULL, metadata TEXT NOT NULL)"
# What FAISS writes before the vectors of an IndexFlatL2: kind, dimension, count, two unused numbers, trained, metric (1 is L2), length.
_HEADER = struct.Struct("<4siqqq?iq")


@dataclass(frozen=True)
class Document:
    """What is indexed: an id, the text that is embedded, and metadata that JSON can hold."""

    id: str
    text: str
    metadata: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a store holds. `model` says which model embedded it (`digest`, and its name and version or its path)."""

    count: int
    dimension: int
    model: dict[str, Any]
    provenance: dict[str, Any]
    files: dict[str, dict[str, Any]]
    digest: str
    metric: str = METRIC
    format_version: int = FORMAT_VERSION

    @property
    def model_digest(self) -> str:
        """The digest of the model that embedded the documents."""
        return str(self.model["digest"])


def build(
    folder: Path,
    documents: Iterable[Document],
    embed: Callable[[Sequence[str]], NDArray[Any]],
    *,
    model_digest: str,
    model: Mapping[str, Any],
    provenance: Mapping[str, Any],
    batch_size: int = 256,
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Embed `documents`, `batch_size` at a time, and write a store into `folder`, which must be empty or absent.

    `embed` gives vectors (n, d); `progress` hears how many documents are done. Documents stream; the vectors stay in memory
    (4 bytes times count times dimension). Raises InvalidRequest for no documents and for an id that occurs twice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ValueError("a vector store is built into an empty folder")
    index = _write_documents(folder / DOCUMENTS, documents, embed, batch_size, progress)
    _write_index(folder / INDEX, index)
    for name in (DOCUMENTS, INDEX):
        manifests.sync_file(folder / name)
    files = manifests.table(manifests.describe(folder, (DOCUMENTS, INDEX)))
    manifest = Manifest(
        count=index.ntotal,
        dimension=index.d,
        model={**model, "digest": model_digest},
        provenance=dict(provenance),
        files=files,
        digest=_digest(files),
    )
    manifests.write_durably(folder / MANIFEST, json.dumps(_plain(asdict(manifest)), ensure_ascii=False, indent=2).encode())
    return manifest


def _write_documents(
    path: Path,
    documents: Iterable[Document],
    embed: Callable[[Sequence[str]], NDArray[Any]],
    batch_size: int,
    progress: Callable[[int], None] | None,
) -> Any:
    """The documents into a new database at `path`; returns the FAISS index of their vectors."""
    import faiss

    index, done = None, 0
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        # A build that is killed leaves no manifest, so the database needs no journal of its own.
        database.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; {_SCHEMA}; BEGIN")
        for batch in _in_batches(documents, batch_size):
            _insert(database, done, batch)
            vectors = np.ascontiguousarray(embed([document.text for document in batch]), dtype=np.float32)
            if vectors.ndim != 2 or len(vectors) != len(batch) or not np.isfinite(vectors).all():
                raise RuntimeError(f"the embedding of {len(batch)} documents is of shape {vectors.shape}, or not finite")
            index = index or faiss.IndexFlatL2(vectors.shape[1])
            index.add(vectors)
            done += len(batch)
            if progress:
                progress(done)
        database.execute("COMMIT")
    if index is None:
        raise InvalidRequest("the data set has no documents", field="dataset.path", remedy="Name a data set with at least one row of text.")
    return index


def _in_batches(documents: Iterable[Document], size: int) -> Iterator[list[Document]]:
    remaining = iter(documents)
    while batch := list(islice(remaining, size)):
        yield batch


def _insert(database: sqlite3.Connection, first: int, batch: Sequence[Document]) -> None:
    for row, document in enumerate(batch, first):
        values = (row, document.id, document.text, json.dumps(_plain(document.metadata), ensure_ascii=False))
        try:
            database.execute("INSERT INTO documents VALUES (?, ?, ?, ?)", values)
        except sqlite3.IntegrityError:
            raise InvalidRequest(
                f"two documents have the id {document.id[:100]!r}",
                field="dataset.loader_kwargs.id_column",
                remedy="Name a column whose values are all different, or leave it out to number the rows.",
            ) from None


def _plain(value: Any) -> Any:
    """`value` as JSON can hold it: numbers that are not finite become null, anything unknown (a date, a decimal) its text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | bool | int) else str(value)


def _write_index(path: Path, index: Any) -> None:
    import faiss

    faiss.write_index(index, str(path))


def _digest(files: Mapping[str, Mapping[str, Any]]) -> str:
    return manifests.digest_of({name: facts["sha256"] for name, facts in files.items()})


class VectorStore:
    """An open store. Any number of threads may search it at once; `close` ends their database connections."""

    def __init__(self, folder: Path, manifest: Manifest, index: Any) -> None:
        self.manifest = manifest
        self._index = index
        self._uri = f"file:{quote(str(folder.absolute() / DOCUMENTS))}?mode=ro&immutable=1"
        self._own = threading.local()
        self._connections: list[sqlite3.Connection] = []

    @classmethod
    def open(cls, folder: Path) -> VectorStore:
        """The store in `folder`. Raises InvalidRequest where it is none, or is not what its manifest says."""
        manifest = _read_manifest(folder)
        for name in (DOCUMENTS, INDEX):
            _check(_size(folder / name) == manifest.files[name]["size"], f"{name} has another size than its manifest says")
        store = cls(folder, manifest, _read_index(folder / INDEX, manifest))
        try:
            (last,) = store._connection().execute("SELECT max(row) FROM documents").fetchone()
        except sqlite3.Error:
            last = None
        if last != manifest.count - 1:
            store.close()
        _check(last == manifest.count - 1, f"{DOCUMENTS} does not hold the documents of its index")
        return store

    def close(self) -> None:
        """Close the database connections of all threads; no search may be under way."""
        while self._connections:
            self._connections.pop().close()

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

    def search(self, vectors: NDArray[Any], top_k: int, score_threshold: float | None = None) -> list[list[Neighbour]]:
        """For each of `vectors` (n, d), its `top_k` nearest documents, nearest first, none farther than `score_threshold`.

        The score is the L2 (Euclidean) distance itself, the square root of what FAISS returns: 0 for the same vector, lower is
        nearer, at most 2 between normalised vectors. A store of fewer than `top_k` documents gives all of them.
        """
        queries = np.ascontiguousarray(vectors, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.manifest.dimension:
            raise InvalidRequest(
                f"the model's vectors do not fit the index, which has {self.manifest.dimension} dimensions",
                field="model",
                remedy="Search with the model that built the index.",
            )
        if not np.isfinite(queries).all():
            raise RuntimeError("the query's embedding is not finite")
        with timing.span("search"):
            squares, rows = self._index.search(queries, min(top_k, self.manifest.count))
            distances = np.sqrt(np.maximum(squares, 0), dtype=np.float64)
            return [self._neighbours(*found, score_threshold) for found in zip(distances, rows, strict=True)]

    def _neighbours(self, distances: NDArray[np.float64], rows: NDArray[np.int64], threshold: float | None) -> list[Neighbour]:
        order = [i for i in np.lexsort((rows, distances)) if threshold is None or distances[i] <= threshold]
        scores = {int(rows[i]): float(distances[i]) for i in order}
        marks = ",".join("?" * len(scores))
        # The values stay parameters; only their number is written into the statement.
        found = self._connection().execute(f"SELECT row, id, text, metadata FROM documents WHERE row IN ({marks})", list(scores))  # noqa: S608
        documents = {row: (id, text, metadata) for row, id, text, metadata in found}
        return [
            Neighbour(id=documents[row][0], score=score, text=documents[row][1], metadata=json.loads(documents[row][2]))
            for row, score in scores.items()
        ]

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self._uri, uri=True, check_same_thread=False)  # each thread uses its own; `close` closes all
            connection.execute("PRAGMA trusted_schema=OFF")
            self._own.connection = connection
            self._connections.append(connection)
        return connection


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    _check(0 < _size(path) <= MAX_MANIFEST_BYTES, f"it has no {MANIFEST}: it is not a vector store, or its build did not end")
    try:
        content = json.loads(path.read_bytes())
        version = content["format_version"]
        manifest = Manifest(**content)
        sound = (
            all(isinstance(number, int) and number > 0 for number in (manifest.count, manifest.dimension))
            and isinstance(manifest.model["digest"], str)
            and all(isinstance(manifest.files[name]["size"], int) for name in (DOCUMENTS, INDEX))
            and manifest.digest == _digest(manifest.files)
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        version, sound = FORMAT_VERSION, False
    _check(version == FORMAT_VERSION, f"its format is version {version!r:.20}, and this release reads version {FORMAT_VERSION}")
    _check(sound, f"its {MANIFEST} is damaged")
    return manifest


def _read_index(path: Path, manifest: Manifest) -> Any:
    """The FAISS index, read only once its header promises exactly the bytes that are there."""
    import faiss

    with path.open("rb") as file:
        head = file.read(_HEADER.size)
    _check(len(head) == _HEADER.size, f"{INDEX} is damaged")
    kind, dimension, count, _, _, _, metric, length = _HEADER.unpack(head)
    _check((kind, metric) == (b"IxF2", 1), f"{INDEX} is not an exact L2 index")
    _check((dimension, count) == (manifest.dimension, manifest.count), f"{INDEX} has another size than its manifest says")
    _check(length == dimension * count and _size(path) == _HEADER.size + 4 * length, f"{INDEX} is damaged")
    return faiss.read_index(str(path))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _check(holds: bool, why: str) -> None:
    if not holds:
        raise InvalidRequest(f"the vector store cannot be used: {why}", field="dataset", remedy="Index the documents again.")
