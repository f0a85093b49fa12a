"""What a request for an index refers to, loaded: the model that embeds, and the documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import datasets, embedder, models, precision, references, storage, vector_store
from ..contracts import IndexRequest
from ..settings import Settings

__all__ = ["Source"]

MAX_METADATA_CHARACTERS = 2000


@dataclass(frozen=True)
class Source:
    """A request's model and data; `table` is None for an update that adds nothing."""

    request: IndexRequest
    loaded: models.LoadedModel
    table: Path | None

    @classmethod
    def load(cls, request: IndexRequest, settings: Settings, progress: storage.Progress | None = None) -> Source:
        """Load both; `progress` is told of downloads. Raises NotFound, InvalidRequest or Unavailable."""
        ref = request.model if request.model.variant else request.model.model_copy(update={"variant": precision.PUBLISHED})
        loaded = models.load(ref, request.tokenizer, settings=settings, progress=progress)
        dataset = request.dataset
        table = references.fetch(dataset, part="dataset", settings=settings, progress=progress) if dataset else None
        return cls(request, loaded, table)

    @property
    def model(self) -> dict[str, Any]:
        """How the index names the model to search it with: the very version of a catalog entry, or the path."""
        ref, version = self.request.model, self.loaded.version
        same = {"digest": version.digest, "variant": version.variant}
        if ref.name:
            return {"name": version.name, "revision": version.version, **same}
        return {"path": ref.path, "storage_type": ref.storage_type, "revision": ref.revision, **same}

    @property
    def choice(self) -> vector_store.Choice:
        """Which index is asked for."""
        asked = vector_store.Choice(self.request.index_type)
        return asked if self.request.recall is None else replace(asked, recall=self.request.recall)

    def about(self, provenance: dict[str, Any]) -> dict[str, Any]:
        """What a store says of itself, and how its index is chosen."""
        return {"model_digest": self.loaded.version.digest, "model": self.model, "provenance": provenance, "choice": self.choice}

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of texts."""
        return embedder.embed(self.loaded.model, texts)[0]

    def documents(self) -> Iterator[vector_store.Document]:
        """The documents of the request, each time anew; rows without text are none."""
        if self.table is None or self.request.dataset is None:
            return
        columns = self.request.dataset.loader_kwargs
        wanted = [columns.page_content_column, *([columns.id_column] if columns.id_column else [])]
        for number, row in enumerate(datasets.read(self.table, wanted, keep_others=True)):
            text = str(row.pop(columns.page_content_column) or "")
            key = str(row[columns.id_column]) if columns.id_column else str(number)
            metadata = {name: value for name, value in row.items() if len(str(value)) <= MAX_METADATA_CHARACTERS}
            if text.strip():
                yield vector_store.Document(key, text, metadata)

    def count(self) -> int:
        """How many documents there are; reads the data."""
        return sum(1 for _ in self.documents())

    def fingerprint(self) -> str:
        """sha256 over the data's files; reads them."""
        return references.digest(self.table) if self.table else ""
