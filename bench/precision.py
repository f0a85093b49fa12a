"""What each precision of a classifier gains and loses: fp32 and bf16 by OpenVINO, int8 dynamic and calibrated, beside fp32 on the CPU.

    python bench/precision.py                           # or: make bench ARGS='--only precision'
    python bench/precision.py --openvino-python PYTHON  # that has mlaas[openvino]
    python bench/precision.py --without-openvino

Trains MiniLM-L6 on synthetic affiliations, through the code of a `train.requested` event, which calibrates int8 on training rows; then each
way computes the same held-out rows, which are generated from another seed, in turn in one process. OpenVINO's build of ONNX Runtime
has the same module name as the plain one, so it gets an environment of its own under ~/.cache/mlaas, which is made at the first run by uv
from the package index. Where there is none, or the processor has no bfloat16, the table says so. Two to ten minutes.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import command, described, markdown

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "precision.json"
OPENVINO = Path("~/.cache/mlaas/bench-openvino").expanduser()
WAYS = ("fp32 CPU", "fp32 OpenVINO", "bf16 OpenVINO", "int8 dynamic CPU", "int8 static CPU")
FILES = {"int8 dynamic CPU": ("bundle/variants/model.int8-dynamic.onnx",), "int8 static CPU": ("bundle/variants/model.int8.onnx",)}


def prepare(folder: Path, rows: int, held_out: int) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Train into folder/bundle; what the training measured of int8, and the held-out rows."""
    from mlaas import samples
    from mlaas.contracts import TrainRequest, parse
    from mlaas.samples.affiliations import affiliations
    from mlaas.training.run import Sources, train

    table = folder / "rows.tsv"
    known = {row.text: row.label for row in affiliations(rows, seed=1)}
    with table.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerows([("affiliation", "label"), *known.items()])
    request = {
        "model": {"path": "minilm", "objective": "text-classification"},
        "model_train": {"epochs": 2, "batch_size": 32, "max_length": 64, "optimizer": {"init_lr": 1e-4, "num_warm_steps": 30}},
        "dataset": {"path": table.name, "text_column": "affiliation", "label_column": "label"},
        "model_save": {"path": "affiliations", "variants": ["int8", "int8-dynamic"]},
    }
    sources = Sources(checkpoint=samples.checkpoint("minilm"), tokenizer=None, table=table)
    outcome = train(parse(TrainRequest, request), sources, folder / "bundle", lambda report: None)
    others = [{"text": row.text, "label": row.label} for row in affiliations(held_out, seed=2) if row.text not in known]
    of_training = {one.name: one.table() for one in outcome.bundle.variants}
    return of_training, [row for row in others if row["label"] in outcome.bundle.labels]


def openvino_python(given: Path | None) -> Path | str:
    """A Python that has mlaas[openvino], made if need be; or why there is none."""
    python = given or OPENVINO / "bin" / "python"
    if not given and not python.exists():
        uv = Path(sys.executable).parent / "uv"
        install = [
            uv,
            "pip",
            "install",
            "--quiet",
            "--python",
            python,
            "--constraint",
            ROOT / "constraints.txt",
            "--editable",
            f"{ROOT}[openvino]",
        ]
        for step in ([uv, "venv", "--quiet", "--python", sys.executable, OPENVINO], install):
            try:
                subprocess.run([str(part) for part in step], check=True, timeout=300)
            except (OSError, subprocess.SubprocessError):
                return "OpenVINO could not be installed"
    probe = "import onnxruntime, mlaas, tokenizers; print(*onnxruntime.get_available_providers())"
    ran = subprocess.run([str(python), "-c", probe], env=environment(), capture_output=True, text=True, check=False)
    return python if "OpenVINO" in ran.stdout else "this Python has no OpenVINO"


def environment() -> dict[str, str]:
    """That of a process which takes mlaas from this checkout, whatever its Python has."""
    return {**os.environ, "PYTHONPATH": str(ROOT / "shared")}


def measure(folder: Path, python: Path, rows: list[dict[str, str]], rounds: int) -> dict[str, Any]:
    """What precision_measure.py finds with that Python."""
    (folder / "rows.json").write_text(json.dumps({"rows": rows, "rounds": rounds}), "utf-8")
    subprocess.run([str(python), str(Path(__file__).parent / "precision_measure.py"), str(folder)], env=environment(), check=True)
    found: dict[str, Any] = json.loads((folder / "measured.json").read_text("utf-8"))
    return found


def compared(found: dict[str, Any], folder: Path, missing: str) -> dict[str, Any]:
    """The figures of every way with its size and ratios to fp32 on the CPU; of one that is not there, why."""
    base: dict[str, Any] = found["fp32 CPU"]
    result: dict[str, Any] = {}
    for name in WAYS:
        if name not in found:
            result[name] = {"note": missing}
            continue
        one = found[name]
        files = FILES.get(name) or ("bundle/model.onnx", "bundle/model.onnx_data")
        result[name] = {
            **one,
            "bytes": sum((folder / file).stat().st_size for file in files if (folder / file).exists()),
            "times_fp32_cpu": round(one["tokens_per_second"] / base["tokens_per_second"], 2),
            "times_fp32_cpu_by_cpu_time": round(one["tokens_per_cpu_second"] / base["tokens_per_cpu_second"], 2),
            "accuracy_loss": round(base["accuracy"] - one["accuracy"], 5),
        }
    return result


def table(record: dict[str, Any]) -> str:
    """The record in Markdown."""
    titles = ("way", "tokens/s", "times fp32 CPU", "by CPU time", "MB", "accuracy", "loss of it", "largest difference", "beyond 0.001")
    rows = []
    for name, one in record["ways"].items():
        if "note" in one:
            rows.append((name, one["note"], *[None] * 7))
            continue
        rest = (
            f"{one['accuracy']:.4f}",
            f"{one['accuracy_loss']:.4f}",
            f"{one['largest_difference']:.2g}",
            f"{one['rows_beyond_0.001']:.1%}",
        )
        paces = (f"{one['tokens_per_second']:,}", f"{one['times_fp32_cpu']:.2f}", f"{one['times_fp32_cpu_by_cpu_time']:.2f}")
        rows.append((name, *paces, f"{one['bytes'] / 1e6:.1f}", *rest))
    return markdown(titles, rows)


def main() -> int:
    """Train, measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=6000, help="synthetic strings to train on (6000)")
    parser.add_argument("--held-out", type=int, default=1000, help="and to measure with (1000)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way that count (3)")
    parser.add_argument("--openvino-python", type=Path, help="a Python that has mlaas[openvino], instead of an environment made for this")
    parser.add_argument("--without-openvino", action="store_true", help="leave its rows out")
    options = parser.parse_args()
    other = "left out" if options.without_openvino else openvino_python(options.openvino_python)
    print(f"OpenVINO: {other if isinstance(other, str) else 'there'}; training on {options.rows} strings", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        of_training, rows = prepare(folder, options.rows, options.held_out)
        print(f"measuring {len(rows)} held-out strings, {options.rounds} rounds", flush=True)
        found = measure(folder, Path(sys.executable) if isinstance(other, str) else other, rows, options.rounds)
        missing = f"not measured: {other}" if isinstance(other, str) else "not measured: this processor has no bfloat16"
        ways = compared(found["ways"], folder, missing)
    record = {"command": command(), **described(), "onnxruntime": found["onnxruntime"], "held_out": len(rows), "batch": 32}
    record |= {"rounds": options.rounds, "ways": ways, "of_training": of_training}
    print(table(record))
    RESULTS.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
