"""What opening an ONNX Runtime session costs, and what a graph that was optimised beforehand would save.

    python bench/session_load.py

Exports MiniLM-L6 and has ONNX Runtime write it optimised at its levels `basic` (any provider takes it) and `extended` (fused operators of
the CPU provider), weights beside it. Then opens each in a new process for each measurement, in turn, as it is served (`all`) or without
further optimisation (`off`), and also without packing the weights for the processor. Prints the least CPU time of opening it and of an
answer to one text of 16 tokens afterwards, in milliseconds, and writes bench/results/session_load.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import machine

RESULTS = Path(__file__).parent / "results" / "session_load.json"
LEVELS = {"off": 0, "basic": 1, "extended": 2, "all": 99}
# Name: which graph is opened, at which level, and whether its weights are packed.
WAYS = {
    "as it is served": ("exported", "all", True),
    "optimised beforehand, basic": ("basic", "all", True),
    "optimised beforehand, basic, and not again": ("basic", "off", True),
    "optimised beforehand, extended, and not again": ("extended", "off", True),
    "weights not packed": ("exported", "all", False),
    "optimised beforehand, extended, weights not packed": ("extended", "off", False),
}
OPEN = """
import json, sys, time
import numpy, onnxruntime
graph, level, packed = json.loads(sys.argv[1])
options = onnxruntime.SessionOptions()
options.log_severity_level, options.intra_op_num_threads = 3, 1
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel(level)
options.add_session_config_entry("session.disable_prepacking", "0" if packed else "1")
started = time.process_time()
session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
opened = time.process_time() - started
feed = {one.name: numpy.ones((1, 16), numpy.int64) for one in session.get_inputs()}
runs = []
for _ in range(10):
    started = time.process_time()
    session.run(None, feed)
    runs.append(time.process_time() - started)
print(json.dumps([opened, min(runs)]))
"""


def optimised(graph: Path, level: str, folder: Path) -> Path:
    """`graph` as ONNX Runtime leaves it after its optimisations of `level`, with its weights beside it."""
    import onnxruntime

    folder.mkdir()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel(LEVELS[level])
    options.optimized_model_filepath = str(folder / "model.onnx")
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "model.onnx_data")
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    return folder / "model.onnx"


def opened(graph: Path, level: str, packed: bool) -> tuple[float, float]:
    """Milliseconds of CPU time to open `graph` in a new process, and of an answer."""
    asked = json.dumps([str(graph), LEVELS[level], packed])
    ran = subprocess.run([sys.executable, "-c", OPEN, asked], capture_output=True, text=True, check=True)
    opening, answer = json.loads(ran.stdout)
    return opening * 1000, answer * 1000


def table(record: dict[str, Any]) -> str:
    """What `record` says, as Markdown."""
    rows = [[way, one["open_ms"], one["answer_ms"]] for way, one in record["ways"].items()]
    return machine.markdown(["graph", "CPU ms to open", "CPU ms of an answer"], rows)


def main() -> int:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    from mlaas.samples import checkpoint
    from mlaas.training.export import export

    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        graphs = {"exported": export(Path(checkpoint("minilm")), "no-objective", Path(name) / "bundle").graph}
        graphs |= {level: optimised(graphs["exported"], level, Path(name) / level) for level in ("basic", "extended")}
        for number in range(options.rounds + 1):
            for way, (graph, level, packed) in WAYS.items():
                measured = opened(graphs[graph], level, packed)
                if number:  # the first round warms the file cache
                    found[way].append(measured)
    ways = {way: {"open_ms": round(min(each)[0], 1), "answer_ms": round(min(one for _, one in each), 2)} for way, each in found.items()}
    record = {"command": machine.command(), "date": f"{datetime.now(UTC):%Y-%m-%d}", **machine.described(), "ways": ways}
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    print(table(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
