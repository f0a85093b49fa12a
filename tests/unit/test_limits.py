"""A container's limits count, not its host's size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlaas import limits


def group(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        file = folder / name.replace("__", "/").replace("-", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return folder


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu-max": "max 100000"}, 8),
        ({"cpu-max": "200000 100000"}, 2),
        ({"cpu-max": "250000 100000"}, 2),
        ({"cpu-max": "50000 100000"}, 1),
        ({"cpu-max": "6400000 100000"}, 8),
        ({"cpu__cpu-cfs_quota_us": "300000", "cpu__cpu-cfs_period_us": "100000"}, 3),
        ({"cpu__cpu-cfs_quota_us": "-1", "cpu__cpu-cfs_period_us": "100000"}, 8),
        ({"cpu-max": "nonsense"}, 8),
    ],
)
def test_threads_are_as_many_as_the_quota_and_the_affinity_allow(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert limits.cpus(group(tmp_path, **files)) == expected


def test_the_affinity_counts_without_a_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert limits.cpus(tmp_path) == 2


@pytest.mark.parametrize(
    ("files", "expected"), [({"memory-max": "2147483648"}, 2 * 1024**3), ({"memory__memory-limit_in_bytes": "1073741824"}, 1024**3)]
)
def test_memory_is_the_containers(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert limits.memory(group(tmp_path, **files)) == expected


@pytest.mark.parametrize("files", [{}, {"memory-max": "max"}, {"memory__memory-limit_in_bytes": "9223372036854771712"}])
def test_memory_is_the_machines_where_nothing_limits_it(tmp_path: Path, files: dict[str, str]) -> None:
    assert limits.memory(group(tmp_path, **files)) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_threads_that_allocate_share_one_heap() -> None:
    program = """
import sys, threading
from mlaas import limits
if sys.argv[1:]:
    limits.small_heap()
def grow():
    numbers = [bytes(1000) for _ in range(20_000)]
threads = [threading.Thread(target=grow) for _ in range(8)]
for each in threads: each.start()
for each in threads: each.join()
print(sum('---p 00000000 00:00 0' in line for line in open('/proc/self/maps')))
"""
    many, one = (
        int(subprocess.run([sys.executable, "-c", program, *given], capture_output=True, text=True, check=True).stdout)
        for given in ([], ["small"])
    )
    assert one < many
