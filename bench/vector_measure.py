"""One step of vector_search.py in a process of its own: `python vector_measure.py STEP JSON`; its figures are the last line it prints.

Steps: data, build, open, search. Memory is that of the process alone: `peak_mb` with the pages of mapped files that were touched,
`private_mb` without.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import vector_data
from numpy.typing import NDArray
from vector_ways import WAYS, Opened

RECALL = 0.95
PASSES, BATCH, WARM_UP = 5, 250, 100
TUNING, TESTING = 1, 2


def data(folder: Path, count: int, seed: int, queries: int) -> dict[str, Any]:
    """Write the vectors, and two sets of queries with what is nearest to them."""
    began = time.perf_counter()
    vector_data.make(folder / "vectors.npy", count, seed)
    made = time.perf_counter()
    held = vector_data.vectors(folder / "vectors.npy")
    for part in (TUNING, TESTING):
        asked = vector_data.queries(queries, seed, part)
        np.savez(folder / f"queries-{part}.npz", queries=asked, nearest=vector_data.nearest(held, asked))
    return {"vectors_s": round(made - began, 1), "exact_search_s": round(time.perf_counter() - made, 1)}


def build(folder: Path, name: str, seed: int) -> dict[str, Any]:
    """Build an index of the vectors and write it, on all cores."""
    held, place = vector_data.vectors(folder / "vectors.npy"), folder / name.replace(" ", "-")
    place.mkdir()
    _imported(WAYS[name].needs)
    began, told = time.perf_counter(), 0

    def say(done: int) -> None:
        nonlocal told
        if (tenth := 10 * done // len(held)) > told:
            told = tenth
            print(f"    {done:,} of {len(held):,} in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)

    found = WAYS[name].build(place, held, seed, say)
    seconds = time.perf_counter() - began
    size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    return {"build_s": round(seconds, 2), "size_mb": round(size / 1e6, 1), "build_peak_mb": _memory("VmHWM"), **found}


def open_(folder: Path, name: str, count: int, started: float) -> dict[str, Any]:
    """Open the index and answer one query (`open_s`; `only_open_s` without the answer), in a process that has done nothing else."""
    asked = np.load(folder / f"queries-{TESTING}.npz")["queries"][:1]
    began = time.perf_counter()
    _imported(WAYS[name].needs)
    imported = time.perf_counter()
    opened = WAYS[name].open(folder / name.replace(" ", "-"), count)
    ready = time.perf_counter()
    opened.rows(opened.search(asked, 1))
    answered = time.perf_counter()
    return {
        "import_s": round(imported - began, 3),
        "only_open_s": round(ready - imported, 4),
        "open_s": round(answered - imported, 4),
        "start_s": round(time.time() - started, 3),
    }


def search(folder: Path, name: str, count: int) -> dict[str, Any]:
    """Give the least effort that reaches RECALL on the tuning queries, then measure with the others."""
    opened = WAYS[name].open(folder / name.replace(" ", "-"), count)
    cores = os.cpu_count() or 1
    found = _tuned(opened, folder, cores)
    asked, nearest = _queries(folder, TESTING)
    found["recall"] = _recall(opened, asked, nearest, cores)
    found |= _timed(opened.search, asked, cores)
    if bare := getattr(opened, "search_index", None):
        found |= {f"index_{key}": value for key, value in _timed(bare, asked, cores).items()}
    return {**found, "search_peak_mb": _memory("VmHWM"), "search_private_mb": _memory("RssAnon")}


def _tuned(opened: Opened, folder: Path, cores: int) -> dict[str, Any]:
    asked, nearest = _queries(folder, TUNING)
    for effort in opened.efforts:
        opened.give(effort)
        if (recall := _recall(opened, asked, nearest, cores)) >= RECALL:
            return {"effort": effort, "recall_tuning": recall}
    return {"recall_tuning": _recall(opened, asked, nearest, cores)}


def _queries(folder: Path, part: int) -> tuple[Any, Any]:
    held = np.load(folder / f"queries-{part}.npz")
    return held["queries"], held["nearest"]


def _recall(opened: Opened, asked: NDArray[np.float32], nearest: NDArray[np.int64], cores: int) -> float:
    """The part of the K nearest that is found."""
    found = np.vstack([opened.rows(opened.search(asked[at : at + BATCH], cores)) for at in range(0, len(asked), BATCH)])
    return round(float((found[:, :, None] == nearest[:, None, :]).any(axis=2).mean()), 4)


def _timed(ask: Callable[[Any, int], Any], asked: NDArray[np.float32], cores: int) -> dict[str, Any]:
    """Queries per second, medians of PASSES: one at a time on one thread, and BATCH at a time on all cores."""
    for number in range(WARM_UP):
        ask(asked[number : number + 1], 1)
    each, alone, batched = np.empty((PASSES, len(asked))), [], []
    for number in range(PASSES):
        for at in range(len(asked)):
            began = time.perf_counter()
            ask(asked[at : at + 1], 1)
            each[number, at] = time.perf_counter() - began
        alone.append(len(asked) / each[number].sum())
    for _ in range(PASSES):
        began = time.perf_counter()
        for at in range(0, len(asked), BATCH):
            ask(asked[at : at + BATCH], cores)
        batched.append(len(asked) / (time.perf_counter() - began))
    p50, p99 = np.quantile(each, (0.5, 0.99)) * 1000
    return {
        "qps": round(float(np.median(alone))),
        "qps_batched": round(float(np.median(batched))),
        "p50_ms": round(float(p50), 3),
        "p99_ms": round(float(p99), 3),
    }


def _imported(name: str) -> None:
    for module in {"mlaas": ("mlaas.vector_store", "faiss"), "usearch": ("usearch.index",)}.get(name, (name,)):
        importlib.import_module(module)


def _memory(name: str) -> int:
    """A figure of this process in MB, as Linux gives it."""
    return round(int(re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) * 1024 / 1e6)


def main() -> None:
    """Take the step that the arguments name."""
    step, given = sys.argv[1], json.loads(sys.argv[2])
    found = {"data": data, "build": build, "open": open_, "search": search}[step](Path(given.pop("folder")), **given)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
