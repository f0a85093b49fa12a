"""From a request's `model` and `dataset` to what is loaded: catalog, storage, bundle, engine; each once per process."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from . import bundles, engine, limits, metrics, precision, sessions, storage, timing
from .batching import Batcher
from .catalog import Catalog
from .contracts import ModelRef, ModelSource, ModelVersion, TokenizerRef, VectorStoreRef
from .documents import shared
from .errors import InvalidRequest, NotFound, within
from .settings import Settings, current
from .storage import globs

if TYPE_CHECKING:
    from .vector_store import VectorStore

__all__ = ["LoadedModel", "LoadedStore", "check", "check_dataset", "check_store", "forget", "load", "load_for", "load_store"]

T = TypeVar("T")


@dataclass(frozen=True)
class Located:
    """Where a model or an index is, on this machine, and what the catalog calls it."""

    folder: Path
    name: str | None = None
    version: str | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to answer, and how a reply names it."""

    model: engine.Model
    version: ModelVersion


@dataclass(frozen=True)
class LoadedStore:
    """A vector store ready to be searched, and how a reply names it."""

    store: VectorStore
    version: ModelVersion
    model: ModelRef


class Loaded(Generic[T]):
    """A few loaded things of `count` and `size` bytes together at the most, or a single one.

    The least recently used is given up first; each is loaded once however many ask at the same time.
    """

    def __init__(self, kind: str, count: Callable[[], int], size: Callable[[], int] = lambda: 0) -> None:
        self._kind, self._count, self._size = kind, count, size
        self._bytes: dict[Hashable, int] = {}
        self._items: OrderedDict[Hashable, T] = OrderedDict()
        self._locks: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, load: Callable[[], T], size: Callable[[], int] = lambda: 0) -> T:
        """What is loaded under `key`, or what `load` gives, which is about as many bytes large as `size` says; asked only then."""
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
                metrics.CACHE_REQUESTS.add(f"{self._kind}s", "hit")
                return self._items[key]
            loading = self._locks.setdefault(key, threading.Lock())
        with loading:
            with self._lock:
                if key in self._items:
                    metrics.CACHE_REQUESTS.add(f"{self._kind}s", "hit")
                    return self._items[key]
            metrics.CACHE_REQUESTS.add(f"{self._kind}s", "miss")
            started = time.perf_counter()
            with self._lock:
                self._make_room(key, size())  # before it is loaded: both at once may be more than there is memory for
            try:
                item = load()
            except BaseException:
                with self._lock:
                    self._locks.pop(key, None)
                    self._bytes.pop(key, None)
                raise
            metrics.LOAD_SECONDS.observe(time.perf_counter() - started, self._kind)
            with self._lock:
                self._items[key] = item
                self._locks.pop(key, None)
            return item

    def replace(self, key: Hashable, old: T, new: T) -> None:
        """Hold `new` in the place of `old`, if that is still what is held under `key`."""
        with self._lock:
            if self._items.get(key) is old:
                self._items[key] = new

    def _make_room(self, key: Hashable, size: int) -> None:
        """Give up what has to go for another `size` bytes; what is being loaded counts as well."""
        limit = self._size() or math.inf
        self._bytes[key] = size
        while self._items and (len(self._bytes) > self._count() or sum(self._bytes.values()) > limit):
            oldest, _ = self._items.popitem(last=False)
            del self._bytes[oldest]

    def clear(self) -> None:
        """Give everything up."""
        with self._lock:
            for key in self._items:
                self._bytes.pop(key, None)
            self._items.clear()


_models: Loaded[engine.Model] = Loaded("model", lambda: current().loaded_models, lambda: current().loaded_bytes or limits.memory() // 2)
_stores: Loaded[VectorStore] = Loaded("store", lambda: current().loaded_models)


def load(
    ref: ModelRef, tokenizer: TokenizerRef | None = None, *, settings: Settings | None = None, progress: storage.Progress | None = None
) -> LoadedModel:
    """The model of `ref`, loaded; `progress` is told of a download. Raises NotFound, InvalidRequest or Unavailable."""
    settings = settings or current()
    with timing.span("load"), within("model"):
        located = _located("models", ref, settings, progress)
        bundle = bundles.reopen_bundle(located.folder)
        if ref.objective and ref.objective != bundle.objective:
            raise InvalidRequest(
                f"the model's objective is {bundle.objective}",
                field="model.objective",
                remedy="Leave `objective` out or name the model's own.",
            )
        variant = _variant(ref, bundle, settings)
        exactly = ref.variant is not None and variant != precision.PUBLISHED
    with timing.span("load"), within("tokenizer"):
        graph = bundle.graph_of(variant)
        words = storage.fetch(tokenizer.path, tokenizer.storage_type, settings=settings) if tokenizer else None
        key = (bundle.digest, words, variant, exactly)
        loaded = _models.get(
            key,
            lambda: engine.load(
                bundle,
                variant=variant,
                exactly=exactly,
                tokenizer=words,
                threads=settings.compute_threads,
                token_budget=settings.token_budget,
                batcher=Batcher(wait=settings.batch_wait_ms / 1000, limit=settings.queue_seconds),
            ),
            size=lambda: sum(file.stat().st_size for file in graph.parent.glob(f"{graph.name}*")),
        )
        if (model := loaded.computing) is not loaded:
            _models.replace(key, loaded, model)  # the slower session's memory is given back when its last request ends
    version = ModelVersion(
        digest=bundle.digest,
        objective=bundle.objective,
        name=located.name,
        version=located.version,
        variant=model.variant,
        provider=model.provider,
    )
    return LoadedModel(model, version)


def load_for(
    index: LoadedStore,
    ref: ModelRef | None,
    tokenizer: TokenizerRef | None = None,
    *,
    settings: Settings | None = None,
    progress: storage.Progress | None = None,
) -> LoadedModel:
    """The model that embeds what is searched for in `index`: its own, or that of `ref`, which must be the same one.

    In the variant that embedded the index, unless `ref` says otherwise. Raises as `load` does, and InvalidRequest for another model.
    """
    asked = ref or index.model
    if asked.variant is None and asked.max_accuracy_loss is None:
        asked = asked.model_copy(update={"variant": index.store.manifest.variant})
    loaded = load(asked, tokenizer, settings=settings, progress=progress)
    index.store.require_model(loaded.version.digest)
    return loaded


def _variant(ref: ModelRef, bundle: bundles.Bundle, settings: Settings) -> str:
    """The variant that a request is to be answered in. Raises InvalidRequest where it names one that there is not."""
    if ref.variant:
        return precision.pinned(ref.variant, bundle.variants, bf16=engine.suits(bundle, precision.OPENVINO), here=sessions.runnable())
    limit = settings.max_accuracy_loss if ref.max_accuracy_loss is None else ref.max_accuracy_loss
    return precision.choose(bundle.variants, limit, sessions.runnable()) if bundle.variants and limit is not None else precision.PUBLISHED


def load_store(ref: VectorStoreRef, *, settings: Settings | None = None) -> LoadedStore:
    """The vector store of `ref`, open. Raises NotFound, InvalidRequest or Unavailable."""
    from .vector_store import VectorStore

    settings = settings or current()
    with timing.span("load"), within("dataset"):
        located = _located("indexes", ref, settings)
        store = _stores.get(located.folder, lambda: VectorStore.open(located.folder))
    manifest = store.manifest
    version = ModelVersion(
        digest=manifest.digest, objective="vector_store", name=located.name, version=located.version, variant=manifest.variant
    )
    built_by = {name: value for name, value in manifest.model.items() if name in ("path", "storage_type", "name", "revision")}
    return LoadedStore(store, version, ModelRef.model_validate(built_by))


def check_dataset(path: str, storage_type: str, *, part: str, settings: Settings) -> None:
    """Raise NotFound unless there is a data set at `path`; nothing is fetched. `part` is the request's field that names it."""
    with within(part):
        if storage_type == "hugging_face_hub":
            raise InvalidRequest(
                "data sets are not read from the hub yet", field="storage_type", remedy="Copy the file to `local` or `s3` storage."
            )
        if storage.dataset_exists(path, storage_type, settings=settings):
            return
        if glob := globs.cut(path):
            raise globs.no_match(*glob)
        raise NotFound(
            "there is no data set at this path",
            field="path",
            remedy="Name a CSV, TSV, JSONL, Parquet or Arrow file, or a folder of them, under the storage's root.",
        )


def forget() -> None:
    """Give up everything that is loaded."""
    _models.clear()
    _stores.clear()


def check(ref: ModelSource, *, settings: Settings) -> None:
    """Raise NotFound unless the model of `ref` exists; nothing is fetched."""
    if ref.name:
        Catalog(shared(settings)).resolve("models", ref.name, alias=ref.alias, revision=ref.revision)
        return
    with within("model"):
        found = storage.exists(ref.path or "", ref.storage_type, settings=settings, revision=ref.revision)
    if not found:
        raise NotFound(
            "there is no model at this path",
            field="model.path",
            remedy="Name a folder under the storage's root, or a catalog entry by `model.name`.",
        )


def check_store(ref: VectorStoreRef, *, settings: Settings) -> None:
    """Raise NotFound unless the vector store of `ref` exists; nothing is fetched."""
    if ref.name:
        Catalog(shared(settings)).resolve("indexes", ref.name, alias=ref.alias, revision=ref.revision)
        return
    with within("dataset"):
        found = storage.exists(ref.path or "", ref.storage_type, settings=settings)
    if not found:
        raise NotFound(
            "there is no vector store at this path",
            field="dataset.path",
            remedy="Name a folder under the storage's root, or a catalog entry by `dataset.name`.",
        )


def _located(kind: Any, ref: ModelSource | VectorStoreRef, settings: Settings, progress: storage.Progress | None = None) -> Located:
    revision = getattr(ref, "revision", None)
    if ref.name:
        entry = Catalog(shared(settings)).resolve(kind, ref.name, alias=ref.alias, revision=revision)
        folder = storage.fetch(entry["path"], entry["storage_type"], settings=settings, progress=progress)
        return Located(folder, entry["name"], entry["version"])
    assert ref.path, "the contract asks for a path or a name"
    return Located(storage.fetch(ref.path, ref.storage_type, settings=settings, revision=revision, progress=progress))
