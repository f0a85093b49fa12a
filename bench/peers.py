"""Our functions against other servers: the same model, the same texts, over HTTP, in one run.

    python bench/peers.py --setup      # makes the servers' environments under ~/.cache/mlaas/bench; once
    python bench/peers.py              # 27 minutes at the most; --rounds 1 --seconds 2 for a look

all-MiniLM-L6-v2 embeds physics abstracts, and a classifier with its encoder (the head untrained: the cost is the same) classifies
affiliation strings; both are synthetic and have the lengths that such texts have. Ours are `python -m mlaas.serve functions/embed` and
`functions/classify` on ONNX Runtime's CPU provider and on OpenVINO, there in float32 and,
where requests allow it, in bf16: there the CPU provider gives the first answer, and the model moves. The others are infinity-emb (engines
torch and optimum), sentence-transformers behind FastAPI (backends torch and onnx), FastAPI around a transformers pipeline, and KServe's
huggingfaceserver; each is in an environment of its own and started as its documentation says for a CPU. One that cannot be
installed or does not start is recorded with the reason. huggingfaceserver is on no registry: `--setup --kserve FOLDER` installs it from a
checkout of KServe.

In each round each server is started anew (to its first correct answer: the cold start, files in the page cache), loaded for three seconds
that do not count, then asked over 1 and 8 kept connections for batches of 32 texts and over one for single texts; then its memory is
read. One server runs at a time; clients are one process on the same cores. Tokens are the tokenizer's, without padding.

Prints and records medians of the rounds and ratios in bench/results/peers.json. Ends with 1, and says why, unless ours (on OpenVINO,
in bf16 where the processor computes in it) has 2 times the tokens/s of each peer where the processor computes in bf16 (and as many
elsewhere), starts 10 times faster, holds a third of the memory of each server with PyTorch, and answers within 1e-3 of PyTorch
in float32 and with a cosine of 0.9999 in bf16.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np
from peer_servers import environments, models, processes, report
from peer_servers.report import table
from peer_servers.ways import WAYS, Answers, Place, Way

from mlaas.precision import BF16_FLAGS
from mlaas.sessions import cpu_flags

__all__ = ["main", "table"]

RESULTS = Path(__file__).parent / "results" / "peers.json"
TASKS = ("embed", "classify")
CHECKED = 64  # texts whose answers are compared with float32
WARM = 3.0


def setup(options: argparse.Namespace) -> int:
    """Make all environments; what could not be made is said, and recorded by the run that misses it."""
    reasons = {}
    for name in dict.fromkeys(way.environment for way in WAYS if way.environment):
        print(f"{name} ...", flush=True)
        reasons[name] = environments.make(name, options.patience * 5, {"kserve": options.kserve} if options.kserve else {})
        print(f"{name}: {reasons[name] or 'ready'}", flush=True)
    environments.remember({name: reason for name, reason in reasons.items() if reason})
    return 0


def main() -> int:
    """Measure, print, record; 1 if something promised does not hold."""
    options, began = _options(), time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of what ends the servers
    if options.setup:
        return setup(options)
    ways = [way for way in WAYS if not options.only or any(word in way.name for word in options.only)]
    record: dict[str, Any] = {
        "command": machine.command(), **machine.described(), "bf16": sorted(BF16_FLAGS & cpu_flags()), "tasks": options.tasks,
        "rounds": options.rounds, "seconds": options.seconds, "connections": options.connections, "texts": {}, "ways": {},
    }  # fmt: skip
    for way in ways:
        reason = environments.missing(way)
        tasks = {task: {"reason": f"did not install: {reason}"} if reason else {} for task in options.tasks if task in way.tasks}
        versions = {} if reason else environments.versions(way)
        record["ways"][way.name] = {"kind": way.kind, "torch": way.torch, "versions": versions, "tasks": tasks}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models.prepare(folder)
        for number, task in enumerate(options.tasks):
            left = began + options.minutes * 60 - time.monotonic()
            measure(folder, task, ways, record, options, time.monotonic() + left / (len(options.tasks) - number))
    print("\n" + table(record))
    return 1 if report.broken(record) else 0


def measure(folder: Path, task: str, ways: list[Way], record: dict[str, Any], options: argparse.Namespace, end: float) -> None:
    """The rounds of a task, alternating between the ways, one at least and no more than end by `end`; the record is written after each."""
    texts = models.texts(folder, task)
    lengths = [each for batch in texts.tokens for each in batch]
    record["texts"][task] = (
        f"{len(lengths)} texts of {min(lengths)} to {max(lengths)} tokens, {np.mean(lengths):.0f} in the mean, 32 in a request"
    )
    checked = [text for batch in texts.batches for text in batch][:CHECKED]
    right = models.reference(folder, task, checked)
    rows: dict[str, list[dict[str, Any]]] = {}
    took = 0.0
    for number in range(options.rounds + 1):
        begun = time.monotonic()
        if number > 1 and begun + took > end:
            print(f"{task}  no time for round {number}", flush=True)
            break
        for way in ways:
            found = record["ways"][way.name]["tasks"].get(task)
            if found is None or "reason" in found:
                continue
            place = Place(folder, task, options.port)
            try:
                row = one_round(way, place, texts, checked, right, options, counts=number > 0)
            except processes.NotServed as error:
                found.clear()
                found["reason"] = f"did not run: {str(error).replace(str(folder), '')}"
                print(f"{task}  {way.name}: {found['reason']}", flush=True)
                continue
            if row:
                rows.setdefault(way.name, []).append(row)
                found.update(report.summary(rows[way.name]))
                speeds = "  ".join(f"{each['tokens_per_second']:9,.0f}" for each in row["load"].values())
                print(
                    f"{task}  round {number}  {way.name:32} {speeds} tokens/s  cold {row['cold']:.2f} s  {row['memory']['rss']:.0f} MiB",
                    flush=True,
                )
        took = time.monotonic() - begun
        RESULTS.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def one_round(
    way: Way, place: Place, texts: models.Texts, checked: list[str], right: Answers, options: argparse.Namespace, *, counts: bool
) -> dict[str, Any] | None:
    """Start, load and stop one server; nothing is measured of the first start, which brings its files into the page cache."""
    with processes.served(way, place, checked[:1], right[:1], patience=options.patience) as server:
        if not counts:
            return None
        bodies = models.write_bodies(way, place.task, texts.batches, place.models / "bodies.jsonl")
        tokens = [sum(each) for each in texts.tokens]
        processes.load(server, bodies, tokens, 4, WARM)
        loads = {str(each): processes.load(server, bodies, tokens, each, options.seconds) for each in options.connections}
        singles = models.write_bodies(way, place.task, [[text] for text in checked], place.models / "singles.jsonl")
        counted = [each for batch in texts.tokens for each in batch][:CHECKED]
        return {
            "cold": server.cold,
            "load": loads,
            "single": processes.load(server, singles, counted, 1, options.seconds / 2),
            "memory": server.memory(),
            "accuracy": accuracy([answer for start in range(0, CHECKED, 32) for answer in server.ask(checked[start : start + 32])], right),
        }


def accuracy(found: Answers, right: Answers) -> dict[str, float]:
    """The largest absolute difference, and the smallest cosine between the answers to a text."""
    a, b = np.array(found), np.array(right)
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return {"largest_difference": float(np.abs(a - b).max()), "smallest_cosine": float(cosines.min())}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setup", action="store_true", help="make the environments and end")
    parser.add_argument("--kserve", type=Path, metavar="FOLDER", help="with --setup: a checkout of KServe, for its huggingfaceserver")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=27.0, help="of the whole run: no round begins that would end later")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--only", nargs="+", metavar="WORD", help="the servers whose names have one of these words in them")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds that a server may take to start")
    parser.add_argument("--port", type=int, default=18461)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
