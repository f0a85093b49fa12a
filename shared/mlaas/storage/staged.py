"""Models that were put on this machine beforehand: in an image, by an init container, on a mounted volume.

    <MLAAS_STAGED>/<version>/     the files of a version, as `mlaas catalog stage` writes them

A version's name begins the digest of its files, so it is the same model wherever it lies, and nothing needs to be asked. The folder
may be read-only. Files are not read to compare them: who staged them has verified them.
"""

from __future__ import annotations

import logging
from pathlib import Path

from ..errors import InvalidRequest
from ..settings import Settings
from .manifests import check_sizes, digest_of, manifest_files
from .paths import is_safe_name

__all__ = ["staged", "version_of"]

log = logging.getLogger("mlaas")

_SHORTEST = 16  # digits of a digest that name a version


def version_of(path: str) -> str:
    """The last part of a version's path, which is its name."""
    return path.rstrip("/").rpartition("/")[2]


def staged(version: str, settings: Settings) -> Path | None:
    """The folder with the files of `version`, None where it was not staged, or where what was staged is something else."""
    if settings.staged is None or len(version) < _SHORTEST or not is_safe_name(version):
        return None
    folder = settings.staged / version
    files = manifest_files(folder)
    if not files:
        return None
    try:
        check_sizes(folder, files)
    except InvalidRequest:
        files = {}
    if not digest_of({name: record.sha256 for name, record in files.items()}).startswith(version):
        log.warning("storage.staged_ignored", extra={"fields": {"version": version}})
        return None
    return folder
