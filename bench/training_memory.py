"""Compare the memory that a training was estimated to need with its measured peak, for models of two shapes.

Each runs in a process of its own; the last part of a run, export and parity, is left out of the peak: the run is ended
after its optimizer steps. Run it alone: `python bench/training_memory.py`; writes bench/results/training_memory.json.
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "training_memory.json"
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


def main() -> None:
    """Measure each shape with and without gradient checkpointing."""
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
