"""What a figure was measured on, and by which command."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["command", "described", "markdown"]

CPUINFO = Path("/proc/cpuinfo")


def described() -> dict[str, Any]:
    """Date, model of the processor, cores, threads of torch, and the load: how many processes wanted a core in the last minute."""
    try:
        lines = CPUINFO.read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    found = {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": model,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }
    torch = sys.modules.get("torch")
    return found if torch is None else {**found, "threads": torch.get_num_threads()}


def command() -> str:
    """The command line of this process, files by their names only: where they lie is the machine's own business."""
    given = [Path(each).name if "/" in each else each for each in sys.argv[1:]]
    return shlex.join(["python", f"bench/{Path(sys.argv[0]).name}", *given])


def markdown(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table; what is None is an empty cell."""
    lines = [titles, ["---"] * len(titles), *(["" if cell is None else str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
