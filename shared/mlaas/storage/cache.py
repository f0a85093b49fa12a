"""Downloads on this machine's disk: verified, atomic, downloaded once, bounded in size.

    entries/<key>/<fingerprint>/   one finished download; its time of modification is that of its last use
    staging/<key>.<random>/        one being downloaded, or one being removed
    locks/<key>                    held shared while an entry is looked up, exclusively while it is downloaded

`key` stands for where something came from, `fingerprint` for what it was then, so a changed source becomes another
entry and nobody's files change under their hands. Locks are flocks: they exclude threads and processes alike, and the
kernel releases them when a process is killed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .. import metrics
from ..errors import InvalidRequest, Unavailable
from .manifests import MANIFEST, FileRecord, manifest_files, sync_folder

__all__ = ["Cache"]

_LITTER_SECONDS = 3600.0  # a staging folder this old, whose lock nobody holds, was left by a process that was killed


@dataclass(frozen=True)
class Cache:
    """The downloads under `folder`, at most `limit` bytes of them.

    An entry used within the last `grace` seconds is not evicted: whoever fetched it may only now be opening its files.
    """

    folder: Path
    limit: int
    grace: float = 30.0

    def get(self, source: str, fingerprint: str) -> Path | None:
        """The finished download of `source` as it was at `fingerprint`, None where there is none."""
        key = _key(source)
        place = self.folder / "entries" / key / fingerprint
        if not place.is_dir():
            return None
        with _storable(), self._lock(key, fcntl.LOCK_SH):
            if not place.is_dir():
                return None
            metrics.CACHE_REQUESTS.add("downloads", "hit")
            return _used(place)

    def get_or_download(self, source: str, fingerprint: str, size: int, download: Callable[[Path], None]) -> Path:
        """The finished download, made with `download(folder)` of about `size` bytes if need be, once however many ask for it."""
        key = _key(source)
        place = self.folder / "entries" / key / fingerprint
        if found := self.get(source, fingerprint):
            return found
        with _storable(), self._lock(key, fcntl.LOCK_EX):
            missing = not place.is_dir()
            metrics.CACHE_REQUESTS.add("downloads", "miss" if missing else "hit")
            if missing:
                self._sweep(key)
                self._evict(size, held=key, keep=place)
                self._download(place, download)
            _used(place)
            self._evict(0, held=key, keep=place)
            return place

    def files(self) -> dict[str, Path]:
        """Files of finished downloads by their sha256, as the manifests among them say. Any may be removed at any time."""
        found: dict[str, Path] = {}
        for manifest in (self.folder / "entries").glob(f"*/*/{MANIFEST}"):
            found.update({record.sha256: manifest.parent / name for name, record in _recorded(manifest.parent).items()})
        return found

    def _download(self, place: Path, download: Callable[[Path], None]) -> None:
        staging = self._staging(place.parent.name)
        try:
            staging.mkdir(parents=True)
            download(staging)
            _sync(staging)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(staging, place)
            sync_folder(place.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _evict(self, needed: int, *, held: str, keep: Path) -> None:
        """Remove the least recently used entries until `needed` bytes fit; skip those in use."""
        entries = sorted((_stamp(place), place) for place in (self.folder / "entries").glob("*/*"))
        sizes = {place: _size(place) for _, place in entries}
        excess = sum(sizes.values()) + needed - self.limit
        for stamp, place in entries:
            if excess <= 0:
                return
            if place != keep and self._remove(place, stamp, held):
                excess -= sizes[place]

    def _remove(self, place: Path, stamp: float, held: str) -> bool:
        if time.time() - stamp < self.grace:
            return False
        with self._unless_busy(place.parent.name, held) as free:
            if not free or _stamp(place) != stamp:
                return False
            trash = self._staging(place.parent.name)
            trash.parent.mkdir(parents=True, exist_ok=True)
            os.replace(place, trash)
        shutil.rmtree(trash, ignore_errors=True)
        return True

    def _sweep(self, held: str) -> None:
        """Remove what killed downloads left behind."""
        for litter in (self.folder / "staging").glob("*.*"):
            key = litter.name.partition(".")[0]
            if key == held or time.time() - _stamp(litter) > _LITTER_SECONDS:
                with self._unless_busy(key, held) as free:
                    if free:
                        shutil.rmtree(litter, ignore_errors=True)

    def _staging(self, key: str) -> Path:
        return self.folder / "staging" / f"{key}.{os.urandom(8).hex()}"

    @contextmanager
    def _unless_busy(self, key: str, held: str) -> Iterator[bool]:
        if key == held:
            yield True
            return
        try:
            with self._lock(key, fcntl.LOCK_EX | fcntl.LOCK_NB):
                yield True
        except BlockingIOError:
            yield False

    @contextmanager
    def _lock(self, key: str, operation: int) -> Iterator[None]:
        """An own descriptor for each holder: so a flock excludes the threads of one process as well."""
        place = self.folder / "locks" / key
        place.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, operation)
            yield
        finally:
            os.close(descriptor)


def _recorded(place: Path) -> Mapping[str, FileRecord]:
    try:
        return manifest_files(place)
    except InvalidRequest:
        return {}


def _key(source: str) -> str:
    return hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _used(place: Path) -> Path:
    os.utime(place)
    return place


def _stamp(place: Path) -> float:
    try:
        return place.stat().st_mtime
    except OSError:  # removed by another process meanwhile
        return 0.0


def _size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except OSError:
                continue  # removed by another process meanwhile
    return total


def _sync(folder: Path) -> None:
    """Make a download survive a power cut: a finished entry is never checked again."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(parent, name), "rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(parent))


@contextmanager
def _storable() -> Iterator[None]:
    try:
        yield
    except OSError:
        raise Unavailable(
            "the cache of downloads cannot be read or written", remedy="See that the folder of MLAAS_CACHE is writable and has room."
        ) from None
