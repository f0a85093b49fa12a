"""Named entities and answers to questions, learnt from real files by the code of a `train.requested` event.

    python bench/entities_and_answers.py --entities train.txt                     # CoNLL: token-classification
    python bench/entities_and_answers.py --questions xquad.en.json --rows 600     # SQuAD's JSON: question-answering

The model is MiniLM-L6, which has learnt neither; its new head starts from noise, and a few hundred examples on two cores make no good
model of it: the figures say that the pipeline is right. Entities are compared as seqeval does, whole and with their type; answers as
SQuAD's script does. Prints the figures on the held-out part with those of each epoch, and adds them to
bench/results/entities_and_answers.json. 1 is returned if a run learnt nothing: an F1 below GOAL.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import command, described

from mlaas import samples
from mlaas.contracts import TrainRequest, parse

RESULTS = Path(__file__).parent / "results" / "entities_and_answers.json"
GOAL = {"token-classification": 0.3, "question-answering": 0.1}
LEFT_OUT = ("confusion", "per_class")  # large


def request(objective: str, options: argparse.Namespace) -> dict[str, Any]:
    """The data of the `train.requested` event."""
    return {
        "model": {"path": "minilm", "objective": objective},
        "model_train": {
            "epochs": options.epochs,
            "batch_size": options.batch,
            "max_length": options.max_length,
            "seed": options.seed,
            "deadline_minutes": options.deadline_minutes,
            "optimizer": {"init_lr": options.learning_rate, "num_warm_steps": 20},
        },
        "dataset": {"path": "data", "train_test_split": 0.1},
        "model_save": {"path": "bench"},
    }


def first(file: Path, rows: int | None, into: Path) -> Path:
    """SQuAD's JSON with only so many questions: whole paragraphs, every n-th, so that all articles take part."""
    content = json.loads(file.read_text("utf-8"))
    paragraphs = [paragraph for article in content["data"] for paragraph in article["paragraphs"]]
    total = sum(len(paragraph["qas"]) for paragraph in paragraphs)
    share = 1.0 if rows is None else min(1.0, rows / total)
    kept = [each for number, each in enumerate(paragraphs) if int((number + 1) * share) > int(number * share)]
    copy = into / "questions.json"
    copy.write_text(json.dumps({"version": "1.1", "data": [{"title": "", "paragraphs": kept}]}), "utf-8")
    return copy


def run(objective: str, table: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train, evaluate, export."""
    from mlaas.training.run import Sources, train

    asked, began = request(objective, options), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        sources = Sources(checkpoint=samples.checkpoint("minilm"), tokenizer=None, table=table)
        outcome = train(parse(TrainRequest, asked), sources, Path(folder) / "bundle", lambda report: None)
    return {
        "objective": objective,
        "split": f"10% held out, seed {options.seed}",
        "evaluation": {name: value for name, value in outcome.evaluation.items() if name not in LEFT_OUT},
        "history": {name: value for name, value in outcome.history.items() if name != "steps"},
        "dataset": outcome.dataset,
        "stopped": outcome.stopped,
        "request": asked,
        "machine": described(),
        "command": command(),
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> int:
    """Run what was given, print, record; 1 if one learnt nothing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=Path, help="file in CoNLL format")
    parser.add_argument("--questions", type=Path, help="file in SQuAD's JSON format")
    parser.add_argument("--rows", type=int, help="questions that are used, about; all by default")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=128, help="tokens of a window")
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--deadline-minutes", type=float, help="after which what was learnt is evaluated; none by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not options.entities and not options.questions:
        parser.error("give --entities or --questions")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        if options.entities:
            found.append({"data": options.entities.name, **run("token-classification", options.entities, options)})
        if options.questions:
            table = first(options.questions, options.rows, Path(folder))
            found.append({"data": options.questions.name, **run("question-answering", table, options)})
    for one in found:
        figures = {name: round(value, 4) for name, value in one["evaluation"].items() if isinstance(value, float)}
        counts = f"{one['dataset']['samples_train']} rows to train, {one['dataset']['samples_test']} held out"
        print(f"{one['objective']}: {figures}; {counts}; {one['seconds']} s")
    recorded = json.loads(options.results.read_text()) if options.results.exists() else []
    options.results.parent.mkdir(parents=True, exist_ok=True)
    kept = [each for each in recorded if each["objective"] not in {one["objective"] for one in found}]
    options.results.write_text(json.dumps([*kept, *found], indent=2) + "\n")
    return 0 if all(one["evaluation"]["f1"] >= GOAL[one["objective"]] for one in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
