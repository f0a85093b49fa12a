"""Files that several stores have in common."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

__all__ = ["SEGMENTS", "share"]

SEGMENTS = "segments"


def share(source: Path, target: Path) -> None:
    """Give a file that never changes a second name, or copy it where that cannot be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
