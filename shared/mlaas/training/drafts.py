"""Where a run keeps its checkpoints: in the request's storage, under `<model_save.path>/.draft-<task_id>/`.

A checkpoint counts once `manifest.json` names it: that file is written last and replaced as a whole, so whenever a run is
killed the manifest names files that are there, each with its size and sha256. Files of a checkpoint never change: each
save writes new ones, and those of the checkpoint before are removed after the manifest has moved on. Imports no torch.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .. import storage
from ..contracts import ModelSave
from ..errors import InvalidRequest, MlaasError, NotFound, Unavailable
from ..settings import Settings
from ..storage import manifests

__all__ = ["PREFIX", "Drafts", "StoredDrafts"]

PREFIX = ".draft-"
FORMAT = 1

log = logging.getLogger("mlaas")


class Drafts(Protocol):
    """The checkpoints of one run. `kept` names files of the checkpoint before that still hold, and are not written again.

    `grace` is how many seconds writing one may take once the run is told to stop.
    """

    grace: float

    def save(self, write: Callable[[Path], None], kept: frozenset[str] = frozenset()) -> None:
        """Store what `write(folder)` puts into an empty folder, all or nothing. Raises Unavailable."""

    def load(self) -> Mapping[str, Path] | None:
        """The files of the last complete checkpoint of this very run, by name. Raises Unavailable."""

    def clear(self) -> None:
        """Remove all checkpoints."""


@dataclass
class StoredDrafts:
    """`Drafts` in a storage. `fingerprint` stands for all that a checkpoint depends on; one of another is not used."""

    save_to: ModelSave
    task_id: str
    settings: Settings
    folder: Path
    fingerprint: str = ""
    grace: float = 2.0
    _entries: dict[str, dict[str, Any]] = field(default_factory=dict)

    def of(self, fingerprint: str) -> Drafts:
        """The same place, for what `fingerprint` stands for."""
        self.fingerprint = fingerprint
        return self

    @property
    def path(self) -> str:
        """Where the checkpoints are, relative to the storage's root."""
        return f"{self.save_to.path.rstrip('/')}/{PREFIX}{self.task_id}"

    def save(self, write: Callable[[Path], None], kept: frozenset[str] = frozenset()) -> None:
        """See `Drafts`."""
        token = os.urandom(6).hex()
        staging = self.folder / f"checkpoint-{token}"
        staging.mkdir(parents=True)
        try:
            write(staging)
            entries = {name: entry for name, entry in self._entries.items() if name in kept}
            for name, record in manifests.describe(staging, manifests.files_of(staging)).items():
                entries[name] = {"stored": f"{token}-{name}", "size": record.size, "sha256": record.sha256}
                self._put(staging / name, f"{token}-{name}")
            document = {"format": FORMAT, "fingerprint": self.fingerprint, "files": entries}
            (staging / manifests.MANIFEST).write_text(json.dumps(document), "utf-8")
            self._put(staging / manifests.MANIFEST, manifests.MANIFEST)
        except OSError:
            raise Unavailable("the checkpoint cannot be written", remedy="See that the folder of MLAAS_HOME has room.") from None
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        outdated = {entry["stored"] for entry in self._entries.values()} - {entry["stored"] for entry in entries.values()}
        self._entries = entries
        for name in outdated:
            self._remove(name)

    def load(self) -> Mapping[str, Path] | None:
        """See `Drafts`. What killed saves left behind is removed."""
        try:
            document = manifests.read_json(self._fetch(manifests.MANIFEST))
            if document.get("format") != FORMAT or document.get("fingerprint") != self.fingerprint:
                self._ignored("it belongs to another request, model or data set")
                return None
            files = {name: self._verified(entry) for name, entry in document["files"].items()}
        except NotFound:
            return None
        except (InvalidRequest, KeyError, TypeError, AttributeError):
            self._ignored("it is damaged")
            return None
        self._entries = document["files"]
        self._prune()
        return files

    def clear(self) -> None:
        """See `Drafts`. The manifest goes first, so that half a removal leaves no checkpoint that seems whole."""
        self._entries = {}
        self._remove(manifests.MANIFEST)
        self._remove("")

    def _prune(self) -> None:
        wanted = {entry["stored"] for entry in self._entries.values()} | {manifests.MANIFEST}
        try:
            found = storage.names(self.path, self.save_to.storage_type, settings=self.settings)
        except MlaasError:
            return
        for name in set(found) - wanted:
            self._remove(name)

    def _ignored(self, reason: str) -> None:
        log.warning("checkpoint.ignored", extra={"fields": {"task_id": self.task_id, "reason": reason}})

    def _verified(self, entry: Mapping[str, Any]) -> Path:
        file = self._fetch(entry["stored"])
        if file.stat().st_size != entry["size"] or manifests.sha256_of(file) != entry["sha256"]:
            raise InvalidRequest("a file of the checkpoint is not what its manifest says", field="path")
        return file

    def _fetch(self, name: str) -> Path:
        return storage.fetch(f"{self.path}/{name}", self.save_to.storage_type, settings=self.settings)

    def _put(self, file: Path, name: str) -> None:
        storage.put(file, f"{self.path}/{name}", self.save_to.storage_type, settings=self.settings)

    def _remove(self, name: str) -> None:
        """Remove a file; one that cannot be removed now is litter, and no reason to stop a run."""
        try:
            storage.remove(f"{self.path}/{name}".rstrip("/"), self.save_to.storage_type, settings=self.settings)
        except MlaasError as error:
            log.warning("checkpoint.not_removed", extra={"fields": {"task_id": self.task_id, "reason": error.detail}})
