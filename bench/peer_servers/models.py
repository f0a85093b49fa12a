"""The models and texts that all servers get, and what PyTorch answers in float32."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .ways import LABELS, Answers, Way

__all__ = ["Texts", "prepare", "reference", "texts", "write_bodies"]

BATCH, BATCHES = 32, 64


@dataclass(frozen=True)
class Texts:
    """Batches of a task's texts, and how many tokens each has, special tokens included and padding not."""

    batches: list[list[str]]
    tokens: list[list[int]]


def prepare(folder: Path) -> None:
    """MiniLM-L6 in Hugging Face folders `embed` and `classify`, with ONNX exports as the peers' guides make them; our bundles in `served`.

    The classifier is MiniLM's encoder with an untrained head: the cost is the same.
    """
    import torch
    from optimum.exporters.onnx import main_export
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from mlaas.samples import checkpoint
    from mlaas.training.export import export

    torch.manual_seed(0)
    shutil.copytree(checkpoint("minilm"), folder / "embed")
    AutoModelForSequenceClassification.from_pretrained(checkpoint("minilm"), num_labels=LABELS).eval().save_pretrained(folder / "classify")
    AutoTokenizer.from_pretrained(checkpoint("minilm")).save_pretrained(folder / "classify")
    for task, objective, of_optimum in (
        ("embed", "no-objective", "feature-extraction"),
        ("classify", "text-classification", "text-classification"),
    ):
        export(folder / task, objective, folder / "served" / task)
        _allow_bf16(folder / "served" / task / "manifest.json")
        main_export(str(folder / task), folder / "exported" / task, task=of_optimum, library_name="transformers")
        (folder / task / "onnx").mkdir()
        (folder / task / "onnx" / "model.onnx").hardlink_to(folder / "exported" / task / "model.onnx")


def _allow_bf16(manifest: Path) -> None:
    """Write in the place of a training that bf16 loses nothing: a head that was not trained has no accuracy to lose."""
    document = json.loads(manifest.read_text("utf-8"))
    document["variants"] = [{"name": "bf16", "file": "model.onnx", "accuracy_loss": 0.0}]
    manifest.write_text(json.dumps(document), "utf-8")


def texts(folder: Path, task: str, batch: int = BATCH) -> Texts:
    """Affiliation strings to classify, abstracts to embed (both synthetic, lengths as they are), in an order that is shuffled once."""
    import tokenizers

    from mlaas.samples import abstracts
    from mlaas.samples.affiliations import affiliations

    known = [each.abstract for each in abstracts()] if task == "embed" else [each.text for each in affiliations(BATCH * BATCHES, seed=1)]
    random.Random(0).shuffle(known)
    batches = [known[start : start + batch] for start in range(0, len(known) - batch + 1, batch)][:BATCHES]
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / task / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    return Texts(batches, [[len(one.ids) for one in tokenizer.encode_batch(each)] for each in batches])


def reference(folder: Path, task: str, wanted: Sequence[str]) -> Answers:
    """What transformers computes with PyTorch in float32, each text by itself: unit vectors, or the probabilities of all labels."""
    import torch
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / task)
    kind: Any = AutoModel if task == "embed" else AutoModelForSequenceClassification
    model = kind.from_pretrained(folder / task).eval().float()
    found = []
    with torch.inference_mode():
        for text in wanted:
            output = model(**tokenizer([text], return_tensors="pt", truncation=True, max_length=256))
            if task == "embed":
                found.append(torch.nn.functional.normalize(output.last_hidden_state.mean(1))[0].tolist())
            else:
                found.append(output.logits.softmax(-1)[0].tolist())
    return found


def write_bodies(way: Way, task: str, batches: Sequence[Sequence[str]], file: Path) -> Path:
    """One request of `way` a line."""
    file.write_text("".join(json.dumps(way.body(task, batch), ensure_ascii=False) + "\n" for batch in batches), "utf-8")
    return file
