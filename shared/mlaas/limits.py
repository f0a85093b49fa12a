"""What this process may use of its machine: CPUs and memory by the container's limits (control groups, version 1 and 2)."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["cpus", "memory", "small_heap"]

GROUPS = Path("/sys/fs/cgroup")  # in a container its own group is the root
UNLIMITED = 1 << 60  # version 1 writes a number near 2**63 for no limit
M_TRIM_THRESHOLD, M_ARENA_MAX = -1, -8  # glibc's, of malloc.h
TRIM_BYTES = 1 << 17


def cpus(groups: Path = GROUPS) -> int:
    """Threads that can compute at the same time: the CPUs that this process may run on, or whole CPUs of its quota; 1 at least."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, int(_quota(groups) or allowed)))


def memory(groups: Path = GROUPS) -> int:
    """Bytes that the container may use, or that the machine has; 0 where neither can be told."""
    limits = [*_numbers(groups / "memory.max"), *_numbers(groups / "memory" / "memory.limit_in_bytes")]
    with suppress(ValueError, OSError):  # not Linux
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min((limit for limit in limits if 0 < limit < UNLIMITED), default=0)


def small_heap() -> None:
    """Have the C library keep one heap and give what is free at its end back, not a heap for each thread that ever computed.

    Each heap keeps the largest intermediate values that were ever in it. Nothing happens where the library is not glibc.
    """
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)


def _quota(groups: Path) -> float | None:
    """CPUs as a number that need not be whole; None without a quota."""
    both = _numbers(groups / "cpu.max")  # quota and period in microseconds, or "max" and the period
    if len(both) < 2:
        both = [*_numbers(groups / "cpu" / "cpu.cfs_quota_us"), *_numbers(groups / "cpu" / "cpu.cfs_period_us")]
    return both[0] / both[1] if len(both) == 2 and min(both) > 0 else None


def _numbers(file: Path) -> list[int]:
    try:
        return [int(word) for word in file.read_text(encoding="ascii").split()]
    except (OSError, ValueError):  # there is no such file, or it says "max"
        return []
