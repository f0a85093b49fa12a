"""Vector search of the platform beside raw faiss, hnswlib and usearch: build, size, memory, open, queries per second, recall@10.

    python bench/vector_search.py                                        # 10k, 100k and 1M vectors: about 40 minutes on 2 cores
    python bench/vector_search.py --sizes 10000 --ways ours hnswlib
    python bench/vector_search.py --table                                # the record as Markdown; nothing is measured

`uv pip install -c constraints.txt '.[bench]'` brings hnswlib and usearch; hnswlib is compiled then, which takes a C++ compiler.

The vectors are synthetic (vector_data.py says how): 384 dimensions, clustered, normalised, seeded. Queries are no members. `ours` is a
store as an index job builds it, with documents and metadata, its index chosen by size and its effort by the build; it answers with
documents, and `index` is the same search without them, which is what the other ways do. Each of those gets the least effort that reaches a
recall of 0.95 at 10 on queries of its own; all are then measured with others. Graphs have the same M and ef_construction in every way.

Every step is a process of its own: memory is its own, and `open` begins with nothing in memory (files dropped from the page cache before
the first of two). Queries are asked one at a time on one thread, and 250 at a time on all cores. A way that takes longer than
--limit-seconds is recorded as not done. Figures go to bench/results/vector_search.json after every way; other sizes and ways that are
recorded there stay.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import vector_data
from machine import command, described
from vector_table import table
from vector_ways import WAYS

RESULTS = Path(__file__).parent / "results" / "vector_search.json"
SIZES = (10_000, 100_000, 1_000_000)
RATIOS = {"qps": "higher", "qps_batched": "higher", "build_s": "lower", "size_mb": "lower", "open_s": "lower"}


class NotDone(Exception):
    """A way took too long, or its process failed."""


def default_ways(size: int) -> list[str]:
    """All that differ at that size: ours with a graph too where a flat index is chosen, and one graph of faiss."""
    chosen = WAYS["ours"].told(size)
    skipped = {"ours hnsw": not chosen.startswith("flat"), "faiss hnsw": chosen.startswith("hnsw")}
    return [name for name in WAYS if not skipped.get(name)]


def step(taken: str, until: float, **given: Any) -> dict[str, Any]:
    """The figures of one step. Raises NotDone."""
    line = [sys.executable, str(Path(__file__).with_name("vector_measure.py")), taken, json.dumps(given)]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    try:
        done = subprocess.run(line, stdout=subprocess.PIPE, text=True, env=environment, timeout=max(until - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        raise NotDone(f"while it was to {taken}") from None
    if done.returncode:
        raise NotDone(f"{taken} failed with status {done.returncode}: its message is on standard error")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(folder: Path, name: str, size: int, options: argparse.Namespace) -> dict[str, Any]:
    """Everything about one way, or how far it came."""
    print(f"{size:,} {name}: {WAYS[name].told(size)}", flush=True)
    began, until = time.monotonic(), time.monotonic() + options.limit_seconds
    found: dict[str, Any] = {"what": WAYS[name].told(size)}
    place = folder / name.replace(" ", "-")
    known: dict[str, Any] = {"folder": str(folder), "name": name}
    try:
        found |= step("build", until, **known, seed=options.seed)
        forget(place)
        for kind in ("cold", "warm"):
            opened = step("open", until, **known, count=size, started=time.time())
            found |= {f"{key}{'' if kind == 'cold' else '_warm'}": value for key, value in opened.items()}
        found |= step("search", until, **known, count=size)
    except NotDone as error:
        late = time.monotonic() >= until
        found["not_done"] = f"not done in {options.limit_seconds:.0f} s, {error}" if late else str(error)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    found |= {"seconds": round(time.monotonic() - began, 1), "load": described()["load"]}
    shown = {key: value for key, value in found.items() if key not in ("what", "load")}
    print("    " + ", ".join(f"{key} {value}" for key, value in shown.items()), flush=True)
    return found


def forget(folder: Path) -> None:
    """Drop the files from the page cache, so that the next to open them reads from the disk."""
    for path in (path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def ratios(ways: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """How many times as good `ours` is as each other way: above 1 it is better. `index` is the search without documents."""
    ours, found = ways.get("ours", {}), {}
    for name, other in ways.items():
        if name != "ours" and "not_done" not in other and "not_done" not in ours and ours:
            each = {key: ours[key] / other[key] if better == "higher" else other[key] / ours[key] for key, better in RATIOS.items()}
            each |= {f"index_{key}": ours[f"index_{key}"] / other[key] for key in ("qps", "qps_batched")}
            found[name] = {key: round(value, 2) for key, value in each.items()}
    return found


def record(file: Path, size: int, name: str, found: dict[str, Any], about: dict[str, Any]) -> None:
    """Add the figures of one way to the record; figures on other vectors or queries are dropped."""
    sizes = json.loads(file.read_text())["sizes"] if file.exists() else {}
    one = sizes.get(str(size), {})
    if any(one.get(key) != about[key] for key in ("vectors", "seed", "queries")):
        one = {}
    ways = {**one.get("ways", {}), name: found}
    ways = {key: ways[key] for key in WAYS if key in ways}
    measured_on = {"command": command(), **described()}
    sizes[str(size)] = {**about, **measured_on, "ways": ways, "ratios_of_ours": ratios(ways)}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({**measured_on, "sizes": dict(sorted(sizes.items(), key=lambda item: int(item[0])))}, indent=1) + "\n")


def run(size: int, options: argparse.Namespace) -> bool:
    """Measure all ways at one size; whether all were done."""
    done = True
    with tempfile.TemporaryDirectory(dir=options.work, prefix="vector_search-") as name:
        folder = Path(name)
        print(f"{size:,} vectors of {vector_data.DIMENSION}, and what is nearest to {options.queries} queries, twice", flush=True)
        made = step("data", time.monotonic() + 3600, folder=name, count=size, seed=options.seed, queries=options.queries)
        about = {
            "vectors": size,
            "dimension": vector_data.DIMENSION,
            "data": vector_data.TOLD,
            "seed": options.seed,
            "queries": options.queries,
            "exact_search_s": made["exact_search_s"],
            "limit_seconds": options.limit_seconds,
        }
        for way in options.ways or default_ways(size):
            found = measured(folder, way, size, options)
            record(options.results, size, way, found, about)
            done &= "not_done" not in found
    return done


def main() -> int:
    """Measure, or print the table; 1 if a way was not done, 2 if one cannot be imported."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--ways", nargs="+", choices=WAYS, help="all that differ at a size by default")
    parser.add_argument("--limit-seconds", type=float, default=900.0, help="for one way at one size")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="where vectors and indexes are written, 5 GB for 1M; the temporary folder by default")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the record as Markdown")
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(options.results.read_text())))
        return 0
    if small := [size for size in options.sizes if size < 1000]:
        parser.error(f"--sizes: {small[0]} vectors are too few to measure; take 1000 or more")
    asked = {way for size in options.sizes for way in options.ways or default_ways(size)}
    if missing := sorted({WAYS[way].needs for way in asked if not importlib.util.find_spec(WAYS[way].needs)}):
        print(
            f"not installed: {', '.join(missing)}. uv pip install -c constraints.txt '.[bench]'; or leave them out with --ways.",
            file=sys.stderr,
        )
        return 2
    done = [run(size, options) for size in options.sizes]
    print(table(json.loads(options.results.read_text())))
    return 0 if all(done) else 1


if __name__ == "__main__":
    raise SystemExit(main())
