"""The samples under a platform's local root, to try things with."""

from __future__ import annotations

from pathlib import Path

from . import write
from .checkpoints import CHECKPOINTS, copy_checkpoint

__all__ = ["install"]


def install(root: Path, *, affiliations: int = 2000, seed: int = 0) -> list[str]:
    """Write `samples/` and `checkpoints/` under `root`; the paths, relative to it."""
    write(root / "samples", affiliations=affiliations, seed=seed)
    for name in CHECKPOINTS:
        copy_checkpoint(name, root / "checkpoints" / name)
    return sorted(str(path.relative_to(root)) for path in (*root.glob("samples/*"), *root.glob("checkpoints/*")))
