"""A build in shards: every n-th document is embedded and indexed by another process, here or in another pod of an Indexed Job.

<vector_store_save.path>/.draft-<task id>/<number>/<version>/   a shard that is done: a store of its documents
<vector_store_save.path>/.draft-<task id>/<number>.beat         how many documents a shard that is at work has done

The task's own process is shard 0. It takes over each shard whose process has ended or is silent, so a build ends with
whoever is there; shards that are done outlive a kill.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from .. import jobs, limits, storage, vector_store
from ..errors import InvalidRequest, NotFound
from ..settings import Settings, named
from ..storage.manifests import read_json
from .source import Source

__all__ = ["Shards"]

LEAST_ROWS = 1000  # of a shard: a process costs a second to start
SILENT_SECONDS = 60.0
BEAT_SECONDS = 5.0
LOOK_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Shards:
    """The shards of one task: `number` of them, 1 where sharding is not asked for or not worth it."""

    source: Source
    task_id: str
    number: int
    total: int
    settings: Settings
    _fingerprint: list[str] = field(default_factory=list)
    _beats: dict[int, tuple[str, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, source: Source, task_id: str, total: int, settings: Settings) -> Shards:
        """The shards of a task with `total` documents: the same in every process that asks."""
        number = max(1, min(settings.index_shards, total // LEAST_ROWS))
        return cls(source=source, task_id=task_id, number=number, total=total, settings=settings)

    def make(self, shard: int, folder: Path, progress: Callable[[int], None] | None = None) -> None:
        """Build and publish a shard; `folder` is to work in."""
        documents = islice(self.source.documents(), shard, None, self.number)
        about = self.source.about(self._provenance(shard))
        manifest = vector_store.build(folder / f"shard-{shard}", documents, self.source.embed, progress=progress, **about)
        save = self.source.request.vector_store_save
        storage.publish(folder / f"shard-{shard}", self.path(shard), save.storage_type, manifest.digest[:16], settings=self.settings)

    def done(self, shard: int) -> Path | None:
        """The folder of a shard that is done, for exactly this model, these data and this number of shards."""
        try:
            place = storage.fetch(self.path(shard), self.source.request.vector_store_save.storage_type, settings=self.settings)
            known = read_json(place / "manifest.json")
        except (NotFound, InvalidRequest):
            return None
        mine = known.get("provenance") == self._provenance(shard) and known.get("model") == self.source.model
        return place if mine else None

    def beat(self, shard: int, done: int, folder: Path) -> None:
        """Say that the shard is at work."""
        file = folder / f"{shard}.beat"
        file.write_text(f"{done} {time.time()}")
        storage.put(file, f"{self.path(shard)}.beat", self.source.request.vector_store_save.storage_type, settings=self.settings)

    def combined(self, folder: Path, job: jobs.Job, about: dict[str, Any]) -> vector_store.Manifest:
        """The store of all shards, in `folder`/store; what no other process makes is made here."""
        with self._processes() as processes:
            places = [self._awaited(shard, folder, job, processes) for shard in range(self.number)]
        return vector_store.combine(places, folder / "store", **about)

    def remove(self, job: jobs.Job) -> None:
        """Remove what the shards left in the storage."""
        storage_type = self.source.request.vector_store_save.storage_type
        job.persist(lambda: storage.remove(self.path(0).rpartition("/")[0], storage_type, settings=self.settings))

    def path(self, shard: int) -> str:
        """Where a shard is published."""
        return f"{self.source.request.vector_store_save.path.rstrip('/')}/.draft-{self.task_id}/{shard}"

    def _awaited(self, shard: int, folder: Path, job: jobs.Job, processes: dict[int, subprocess.Popen[bytes]]) -> Path:
        while True:
            if place := job.persist(lambda: self.done(shard)):
                return place
            if shard == 0 or not self._at_work(shard, job, processes):
                job.persist(lambda: self.make(shard, _fresh(folder / f"by-0-{shard}"), lambda done: self._tell(job, shard, done)))
            else:
                self._tell(job, shard, 0)
                time.sleep(LOOK_SECONDS)

    def _at_work(self, shard: int, job: jobs.Job, processes: dict[int, subprocess.Popen[bytes]]) -> bool:
        """Whether its process lives: here, or by its beat, which is timed by this machine's clock alone."""
        if shard in processes:
            return processes[shard].poll() is None
        text = job.persist(lambda: self._beat(shard))
        last, since = self._beats.setdefault(shard, (text, time.monotonic()))
        if text != last:
            self._beats[shard] = (text, time.monotonic())
            return True
        return time.monotonic() - since < SILENT_SECONDS

    def _beat(self, shard: int) -> str:
        storage_type = self.source.request.vector_store_save.storage_type
        try:
            return storage.fetch(f"{self.path(shard)}.beat", storage_type, settings=self.settings).read_text()
        except (NotFound, OSError):
            return ""

    def _tell(self, job: jobs.Job, shard: int, done: int) -> None:
        percent = round(95.0 * (shard + done * self.number / max(self.total, 1)) / self.number, 1)
        job.report({"phase": "embed", "percent": min(percent, 95.0), "shard": shard, "of_shards": self.number})

    def _provenance(self, shard: int) -> dict[str, Any]:
        if not self._fingerprint:
            self._fingerprint.append(self.source.fingerprint())
        asked = {"type": self.source.choice.type, "recall": self.source.choice.recall}
        return {"shard": shard, "of": self.number, "data": self._fingerprint[0], "choice": asked}

    @contextmanager
    def _processes(self) -> Iterator[dict[int, subprocess.Popen[bytes]]]:
        """The other shards' processes on this machine; none in a pod of an Indexed Job, where Kubernetes starts them."""
        if self.settings.completion_index is not None:
            yield {}
            return
        threads = str(max(1, limits.cpus() // self.number))
        started = {}
        try:
            for shard in range(1, self.number):
                more = named(completion_index=str(shard), compute_threads=threads) | {"OMP_NUM_THREADS": threads}
                started[shard] = subprocess.Popen([sys.executable, "-m", "mlaas.indexing"], env={**os.environ, **more})
            yield started
        finally:
            for process in started.values():
                process.terminate()
            for process in started.values():
                process.wait()


def _fresh(folder: Path) -> Path:
    """An empty folder: an attempt that was cut short may have left something."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder
