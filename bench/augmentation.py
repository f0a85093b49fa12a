"""What typing errors in the training rows buy: a fine-tuned MiniLM with and without them, beside a linear model of n-grams.

    python bench/augmentation.py --data affiliations.tsv --rows 4000 --epochs 3

All four runs go through the code of a `train.requested` event and share the split and the misspelt held-out rows: the same
request with `model.architecture: tfidf-linear` (logistic regression over words, pairs of words and 2 to 5 letters in a row)
or a checkpoint, with and without `dataset.augment`. The table needs the columns affiliation and label. Prints accuracy and
macro F1 on the held-out rows as they are and misspelt, with the differences, and how many are wrong: nearly all rows of such a
table name no structure, so that the errors among those that do say more than the accuracy. Writes precision, recall and F1 of
every structure to bench/results/augmentation.json, never the strings; with `--models` runs can be made one by one.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import command, described

from mlaas import datasets, samples
from mlaas.contracts import TrainRequest, parse

RESULTS = Path(__file__).parent / "results" / "augmentation.json"
COLUMNS = ("affiliation", "label")
MODELS = ("linear", "linear + typos", "MiniLM", "MiniLM + typos")
UNNAMED = "[NoSite]"
FIGURES = ("accuracy", "accuracy_named", "macro_f1", "loss")


def sampled(data: Path, rows: int | None, seed: int, into: Path) -> Path:
    """The table, or `rows` of it: all that name a structure, which are few, and as many others, drawn by `seed`, as are missing."""
    table = [tuple(row[name] for name in COLUMNS) for row in datasets.read(data, COLUMNS)]
    if rows is not None:
        others = [index for index, row in enumerate(table) if row[1] == UNNAMED]
        spare = max(0, len(others) - max(0, len(table) - rows))
        left_out = set(others) - set(random.Random(seed).sample(others, spare))
        table = [row for index, row in enumerate(table) if index not in left_out]
    file = into / "rows.tsv"
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened, delimiter="\t", lineterminator="\n")
        writer.writerows([COLUMNS, *table])
    return file


def request(name: str, options: argparse.Namespace, rows: int) -> dict[str, Any]:
    """The data of the `train.requested` event for a table of `rows`."""
    linear = name.startswith("linear")
    dataset: dict[str, Any] = {"path": "rows.tsv", "train_test_split": options.held_out, "misspelt_rate": options.misspelt_rate}
    if name.endswith("typos"):
        dataset["augment"] = {"typos": {"probability": options.probability, "per_text": options.per_text}}
    steps = options.epochs * int(rows * (1 - options.held_out)) // options.batch
    settings = {
        "epochs": options.epochs,
        "batch_size": options.batch,
        "optimizer": {"init_lr": options.learning_rate, "num_warm_steps": min(70, steps // 10)},
        "max_length": 96,
    }
    return {
        "model": {"objective": "text-classification", **({"architecture": "tfidf-linear"} if linear else {"path": "minilm"})},
        "model_train": {"seed": options.seed, **({} if linear else settings)},
        "dataset": {**dataset, "text_column": COLUMNS[0], "label_column": COLUMNS[1]},
        "model_save": {"path": "infn-structures"},
    }


def run(name: str, table: Path, checkpoint: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train once; its figures on the held-out rows, clean and misspelt."""
    rows = sum(1 for _ in datasets.read(table, COLUMNS))
    asked, started = request(name, options, rows), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcome = _trained(parse(TrainRequest, asked), table, checkpoint, Path(folder) / "bundle")
    clean, wrong = outcome.evaluation, outcome.evaluation["misspelt"]
    figures = {kind: {name: each[name] for name in (*FIGURES, "per_class") if name in each} for kind, each in _kinds(clean, wrong)}
    named = sum(each["support"] for label, each in clean["per_class"].items() if label != UNNAMED)
    return {
        "model": name,
        **figures,
        "errors": {kind: round((1 - each["accuracy"]) * outcome.dataset["samples_test"]) for kind, each in _kinds(clean, wrong)},
        "errors_named": {kind: round((1 - each.get("accuracy_named", 1.0)) * named) for kind, each in _kinds(clean, wrong)},
        "rows_test_named": named,
        "rows_misspelt": wrong["rows_changed"],
        "rows_train": outcome.dataset["samples_train"],
        "rows_test": outcome.dataset["samples_test"],
        "classes": outcome.dataset["classes"],
        "device": outcome.provenance["training"]["device"],
        "machine": described(),
        "command": command(),
        "seconds": round(time.monotonic() - started, 1),
        "request": asked,
    }


def _kinds(clean: dict[str, Any], wrong: dict[str, Any]) -> tuple[tuple[str, dict[str, Any]], ...]:
    return ("clean", clean), ("misspelt", wrong)


def _trained(asked: TrainRequest, table: Path, checkpoint: Path, out: Path) -> Any:
    if asked.model.architecture:
        from mlaas.training import pipelines

        return pipelines.train(asked, table, out, lambda report: None)
    from mlaas.training.run import Report, Sources, train

    def show(report: Report) -> None:
        if sys.stderr.isatty():
            print(f"\r{report.phase:9} {report.percent:5.1f} %  {report.eta or 0:6.0f} s left ", end="", file=sys.stderr)

    return train(asked, Sources(checkpoint=checkpoint, tokenizer=None, table=table), out, show)


def compared(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Differences in accuracy and macro F1: what the typing errors buy MiniLM, and MiniLM with them against both linear models."""
    ours = runs.get("MiniLM + typos")
    others = {name: each for name, each in runs.items() if each is not ours}
    if ours is None:
        return {}
    return {
        f"MiniLM + typos - {name}": {
            kind: {figure: round(ours[kind][figure] - each[kind][figure], 4) for figure in ("accuracy", "macro_f1")}
            for kind in ("clean", "misspelt")
        }
        for name, each in others.items()
    }


def recorded(figures: dict[str, Any], options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Put the figures of one model beside those that earlier commands recorded for the same rows; all of them by model."""
    same = {
        "data": options.data.name,
        "rows": options.rows,
        "split": f"{options.held_out:.0%} of each label, seed {options.seed}",
        "misspelt_rate": options.misspelt_rate,
    }
    before = json.loads(options.results.read_text("utf-8")) if options.results.exists() else {}
    kept = before["runs"] if before and {name: before.get(name) for name in same} == same else []
    runs = {each["model"]: each for each in [*kept, figures]}
    options.results.parent.mkdir(parents=True, exist_ok=True)
    content = {**same, "runs": [runs[name] for name in MODELS if name in runs], "differences": compared(runs)}
    options.results.write_text(json.dumps(content, indent=1) + "\n")
    return runs


def _line(each: dict[str, Any]) -> str:
    parts = [
        f"{kind}: accuracy {found['accuracy']:.4f} ({each['errors'][kind]} wrong of {each['rows_test']}, of the {each['rows_test_named']} "
        f"that name a structure {each['errors_named'][kind]}), macro F1 {found['macro_f1']:.4f}"
        for kind, found in _kinds(each["clean"], each["misspelt"])
    ]
    return f"{each['model']:15} {'; '.join(parts)}; {each['seconds']} s on {each['device']}"


def main() -> int:
    """Run all four, print, record; 1 if MiniLM with typing errors does not win on misspelt rows or loses on clean ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="table with the columns affiliation and label")
    parser.add_argument("--rows", type=int, help="keep so many: all that name a structure, others drawn; all by default")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0, help="of the rows, the split, the typing errors and the training")
    parser.add_argument("--held-out", type=float, default=0.3, help="share of each label that is held out")
    parser.add_argument("--probability", type=float, default=0.15, help="of each word of a training text to get a slip")
    parser.add_argument("--per-text", type=float, default=1.0, help="of each training text to be touched")
    parser.add_argument("--misspelt-rate", type=float, default=0.15, help="share of words with a slip in the misspelt held-out rows")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = sampled(options.data, options.rows, options.seed, Path(folder))
        for name in options.models:
            runs = recorded(run(name, table, samples.checkpoint("minilm"), options), options)
            print(_line(runs[name]), flush=True)
    differences = compared(runs)
    for name, found in differences.items():
        print(f"{name}: {json.dumps(found)}")
    wins = all(each["misspelt"]["accuracy"] > 0 and each["clean"]["accuracy"] >= 0 for each in differences.values())
    return 0 if wins else 1


if __name__ == "__main__":
    sys.exit(main())
