"""How much memory there is for a run, and how much it uses. Imports no torch by itself."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

__all__ = ["available", "in_use"]

CGROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))  # version 2, version 1
MEMINFO = Path("/proc/meminfo")
UNLIMITED = 1 << 60  # a version 1 group without a limit names a number near 2**63


def in_use() -> dict[str, int]:
    """Bytes: the peak of this process (`peak`), and of the GPU's memory where one is in use (`gpu_peak`)."""
    unit = 1 if sys.platform == "darwin" else 1024
    used = {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        used["gpu_peak"] = int(torch.cuda.max_memory_allocated())
    return used


def available(limits: tuple[Path, ...] = CGROUPS, meminfo: Path = MEMINFO) -> int | None:
    """Bytes that a run may take: the limit of its control group, or what the machine has left if that is less; None if unknown."""
    limit = next((value for file in limits if (value := _number(file)) is not None), UNLIMITED)
    found = [value for value in (limit if limit < UNLIMITED else None, _machine(meminfo)) if value is not None]
    return min(found) if found else None


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # no such file, or `max`
        return None


def _machine(meminfo: Path) -> int | None:
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None
