"""Accuracy of a classifier fine-tuned on affiliation strings, through the same code as a `train.requested` event.

    python bench/accuracy_affiliations.py --data affiliations.tsv

The table has the columns `affiliation` and `label`; a tenth of its rows, the same share of each label, is held out and looked at
only by the evaluation. Prints the figures and writes them to bench/results/accuracy_affiliations.json, never the strings.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mlaas import samples
from mlaas.contracts import TrainRequest, parse

RESULTS = Path(__file__).parent / "results" / "accuracy_affiliations.json"
GOAL, GOAL_NAMED = 0.98, 0.93


def request(data: str, seed: int, epochs: int) -> dict[str, Any]:
    """The data of the `train.requested` event."""
    return {
        "model": {"path": "minilm", "storage_type": "local", "objective": "text-classification"},
        "model_train": {
            "epochs": epochs,
            "batch_size": 32,
            "optimizer": {"name": "adamw", "init_lr": 1e-4, "num_warm_steps": 70, "weight_decay_rate": 0.01},
            "max_length": 96,
            "seed": seed,
        },
        "dataset": {"path": data, "storage_type": "local", "train_test_split": 0.1, "text_column": "affiliation", "label_column": "label"},
        "model_save": {"path": "infn-structures", "storage_type": "local"},
    }


def run(data: Path, checkpoint: Path, seed: int, epochs: int) -> dict[str, Any]:
    """Train once; the figures."""
    from mlaas.training.run import Report, Sources, train

    def show(report: Report) -> None:
        if sys.stderr.isatty():
            print(
                f"\r{report.phase:9} {report.percent:5.1f} %  loss {report.loss or 0:.4f}  {report.eta or 0:5.0f} s left ",
                end="",
                file=sys.stderr,
            )

    asked = request(data.name, seed, epochs)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        sources = Sources(checkpoint=checkpoint, tokenizer=None, table=data)
        outcome = train(parse(TrainRequest, asked), sources, Path(folder) / "bundle", show)
    seconds = time.monotonic() - start
    evaluation = outcome.evaluation
    matrix, labels = evaluation["confusion"]["matrix"], evaluation["confusion"]["labels"]
    named = sum(sum(row) for row, label in zip(matrix, labels, strict=True) if label != "[NoSite]")
    return {
        "seed": seed,
        "accuracy": evaluation["accuracy"],
        "accuracy_named": evaluation.get("accuracy_named"),
        "macro_f1": evaluation["macro_f1"],
        "loss": evaluation["loss"],
        "errors": sum(sum(row) for row in matrix) - sum(row[index] for index, row in enumerate(matrix)),
        "rows_train": outcome.dataset["samples_train"],
        "rows_test": outcome.dataset["samples_test"],
        "rows_test_named": named,
        "dropped_duplicates": outcome.dataset["dropped_duplicates"],
        "accuracy_per_epoch": outcome.history["accuracy"],
        "parity": evaluation["parity"],
        "seconds": round(seconds, 1),
        "tokens_per_second": outcome.dataset["tokens_per_second"],
        "request": asked,
    }


def main() -> int:
    """Run for each seed, print, record; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="table with the columns affiliation and label")
    parser.add_argument("--checkpoint", type=Path, help="folder of the checkpoint; MiniLM-L6 from the samples by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one run for each")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    checkpoint = options.checkpoint or samples.checkpoint("minilm")
    runs = []
    for seed in options.seeds:
        runs.append(run(options.data, checkpoint, seed, options.epochs))
        figures = runs[-1]
        print(
            f"{options.data.name}, 10% stratified split, seed {seed}: accuracy {figures['accuracy']:.4f} on {figures['rows_test']} "
            f"held-out rows, {figures['accuracy_named'] or 0:.4f} on the {figures['rows_test_named']} that name a structure; "
            f"macro F1 {figures['macro_f1']:.3f}; {figures['rows_train']} training rows; {figures['seconds']} s",
            flush=True,
        )
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    record = {"data": options.data.name, "split": "10% of each label", "machine": machine, "runs": runs}
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(record, indent=2) + "\n")
    return 0 if all(each["accuracy"] >= GOAL and (each["accuracy_named"] or 0) >= GOAL_NAMED for each in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
