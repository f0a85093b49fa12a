"""Compare the memory that a training was estimated to need with its measured peak, for models of two shapes.

Each runs in a process of its own; the last part of a run, export and parity, is left out of the peak: the run is ended
after its optimizer steps. Run it alone: `python bench/training_memory.py`; writes bench/results/training_memory.json.

`python bench/training_memory.py rows` measures instead what the rows of a data set take: how much the memory of a process grows, at its
peak, while it prepares 200,000 rows and makes batches of them. `--before FOLDER` measures a checkout of another commit as well; writes
bench/results/training_rows.json.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "training_memory.json"
ROWS_RESULTS = RESULTS.with_name("training_rows.json")
DISTINCT = 3_000  # words: each is one token
ROWS, WORDS, VOCABULARY, BATCHES = 200_000, (60, 120), 8_000, 300
SHAPES = {
    "4 layers of 256, 32 x 128 tokens": {"layers": 4, "hidden": 256, "rows": 32, "tokens": 128},
    "6 layers of 384, 16 x 256 tokens": {"layers": 6, "hidden": 384, "rows": 16, "tokens": 256},
}


class Measured(Exception):
    """Enough steps were made."""


def run(shape: dict[str, int], checkpointing: bool, precision: str) -> dict[str, Any]:
    """Train a few steps; estimated and measured bytes."""
    import torch
    from transformers import BertConfig, BertModel

    from mlaas.contracts import TrainRequest, parse
    from mlaas.testing.tiny_checkpoints import BIRDS, STONES, write_tokenizer
    from mlaas.training.progress import Report
    from mlaas.training.run import Sources, train

    torch.manual_seed(0)
    draw, folder = random.Random(0), Path(tempfile.mkdtemp())
    write_tokenizer(folder)
    hidden = shape["hidden"]
    config = BertConfig(
        vocab_size=30522,
        hidden_size=hidden,
        num_hidden_layers=shape["layers"],
        num_attention_heads=hidden // 32,
        intermediate_size=4 * hidden,
        max_position_embeddings=shape["tokens"],
    )
    BertModel(config).save_pretrained(folder)
    words = {"bird": BIRDS, "stone": STONES}
    rows = [{"text": " ".join(draw.choices(words[label], k=shape["tokens"])), "label": label} for label in words for _ in range(100)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = {
        "model": {"path": "bench", "objective": "text-classification"},
        "model_train": {"epochs": 1, "batch_size": shape["rows"], "precision": precision, "gradient_checkpointing": checkpointing},
        "dataset": {"path": "rows.jsonl", "train_test_split": 0.1},
        "model_save": {"path": "bench"},
    }
    found: dict[str, Any] = {}

    def look(report: Report) -> None:
        if report.step >= 3:
            found.update(estimated=report.estimate["needed"] if report.estimate else None, measured=report.memory["peak"])
            raise Measured

    with contextlib.suppress(Measured):
        train(parse(TrainRequest, asked), Sources(checkpoint=folder, tokenizer=None, table=folder / "rows.jsonl"), folder / "out", look)
    return found


def write_table(folder: Path) -> Path:
    """ROWS rows of as many made-up words as WORDS says, in ten classes, and a checkpoint whose tokenizer was trained on some."""
    from transformers import BertConfig, BertModel

    from mlaas.training.vocabulary import train_tokenizer

    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(3, 9))) for _ in range(DISTINCT)]
    table = folder / "rows.jsonl"
    sample = []
    with table.open("w") as file:
        for number in range(ROWS):
            text = " ".join(draw.choices(words, k=draw.randint(*WORDS)))
            file.write(json.dumps({"text": text, "label": f"class {number % 10}"}) + "\n")
            if number < 2_000:
                sample.append(text)
    (folder / "bert").mkdir()
    train_tokenizer(sample, "bert", VOCABULARY, folder / "bert", lambda: None)
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=256
    )
    BertModel(config).save_pretrained(folder / "bert")
    return table


def kilobytes(name: str) -> int:
    """A figure of this process, as Linux gives it."""
    return int(re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[0])


def rows(folder: Path, objective: str) -> dict[str, Any]:
    """Prepare the table in `folder` and make BATCHES batches; by how much memory grew, in MiB, and seconds."""
    from mlaas.contracts import TrainRequest, parse
    from mlaas.training.checkpoints import open_checkpoint
    from mlaas.training.objectives import Preparation, prepare

    asked = {
        "model": {"path": "bench", "objective": objective},
        "model_train": {"batch_size": 32},
        "dataset": {"path": "rows.jsonl"},
        "model_save": {"path": "bench"},
    }

    def preparation(table: Path) -> Any:
        spooling = {"work": folder} if "work" in {field.name for field in dataclasses.fields(Preparation)} else {}
        checkpoint = open_checkpoint(folder / "bert", None)
        request = parse(TrainRequest, asked)
        return Preparation(request=request, checkpoint=checkpoint, table=table, max_length=256, tick=lambda: None, **spooling)

    with (folder / "rows.jsonl").open() as file, (folder / "few.jsonl").open("w") as few:
        few.writelines(next(file) for _ in range(3_000))
    list(prepare(preparation(folder / "few.jsonl")).held_out())  # what is imported and allocated once is not counted
    Path("/proc/self/clear_refs").write_text("5")  # the peak is measured from here on
    before, began = kilobytes("VmRSS"), time.perf_counter()
    task = prepare(preparation(folder / "rows.jsonl"))
    prepared = time.perf_counter() - began
    batches = task.batches(0)
    began = time.perf_counter()
    tokens = sum(next(batches).tokens for _ in range(BATCHES))
    return {
        "peak_growth_mib": round((kilobytes("VmHWM") - before) / 1024),
        "growth_mib": round((kilobytes("VmRSS") - before) / 1024),
        "prepare_seconds": round(prepared, 1),
        "milliseconds_per_batch": round((time.perf_counter() - began) / BATCHES * 1000, 2),
        "tokens_per_batch": round(tokens / BATCHES),
        "tokens": task.dataset["tokens"],
    }


def measure_rows(before: Path | None) -> None:
    """Measure each objective, with this code and with that of the checkout `before`."""
    folder = Path(tempfile.mkdtemp())
    table = write_table(folder)
    found: dict[str, Any] = {"rows": ROWS, "table_mib": round(table.stat().st_size / 1024**2), "results": []}
    for objective in ("text-classification", "masked-lm"):
        for code, path in {"this": None, **({"before": before} if before else {})}.items():
            environment = {**os.environ, **({"PYTHONPATH": str(path / "shared")} if path else {}), "TOKENIZERS_PARALLELISM": "true"}
            command = [sys.executable, __file__, "rows-of", str(folder), objective]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            found["results"].append({"objective": objective, "code": code, **json.loads(done.stdout)})
            ROWS_RESULTS.write_text(json.dumps(found, indent=1) + "\n")
            print(found["results"][-1], flush=True)


def main() -> None:
    """Measure each shape with and without gradient checkpointing, or the rows."""
    if sys.argv[1:2] == ["rows-of"]:
        print(json.dumps(rows(Path(sys.argv[2]), sys.argv[3])))
        return
    if sys.argv[1:2] == ["rows"]:
        measure_rows(Path(sys.argv[3]) if sys.argv[2:3] == ["--before"] else None)
        return
    if len(sys.argv) > 1:
        print(json.dumps(run(json.loads(sys.argv[1]), sys.argv[2] == "checkpointing", "fp32")))
        return
    results = []
    for name, shape in SHAPES.items():
        for way in ("plain", "checkpointing"):
            done = subprocess.run([sys.executable, __file__, json.dumps(shape), way], capture_output=True, text=True, check=True)
            one = json.loads(done.stdout)
            results.append({"shape": name, "activations": way, **one, "ratio": round(one["estimated"] / one["measured"], 2)})
            print(results[-1], flush=True)
    RESULTS.write_text(json.dumps({"precision": "fp32", "device": "cpu", "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
