"""From process start to the first correct classification: ONNX Runtime against torch + transformers, same model, one run.

    python bench/cold_start.py

Trains a small three-class classifier from the MiniLM-L6 checkpoint (300 synthetic strings, three epochs), keeps it both as a PyTorch
checkpoint and as the ONNX bundle that the platform serves, then starts a new process for each measurement, alternating, and takes medians:

- onnx: a process that loads the bundle through `mlaas` and classifies one string
- function: `python -m mlaas.serve functions/classify`, from its start to the HTTP answer
- torch: a process that loads the checkpoint through transformers and classifies the same string

Prints the ratios and writes bench/results/cold_start.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import requests

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "cold_start.json"
TEXT, LABEL = "Istituto Nazionale di Fisica Nucleare, Laboratori Nazionali di Frascati, I-00044 Frascati, Italy", "LNF"
LABELS = ("LNF", "PI", "[NoSite]")
ONNX = """
import sys
from pathlib import Path
from mlaas import bundles, classifier, engine
model = engine.load(bundles.open_bundle(Path(sys.argv[1])))
print(classifier.classify(model, [sys.argv[2]])[0].label)
"""
TORCH = """
import sys
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1]).eval()
with torch.no_grad():
    logits = model(**tokenizer([sys.argv[2]], return_tensors="pt", truncation=True)).logits
print(model.config.id2label[int(logits.argmax())])
"""


def prepare(folder: Path) -> tuple[Path, Path]:
    """The PyTorch checkpoint of a small trained classifier, and the ONNX bundle that `mlaas export` makes of it."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from mlaas.samples import checkpoint
    from mlaas.samples.affiliations import affiliations
    from mlaas.training.export import export

    torch.manual_seed(0)
    known = list(affiliations(6000, seed=1))
    rows = [row for label in LABELS for row in [row for row in known if row.label == label][:100]] * 3
    random.Random(0).shuffle(rows)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint("minilm"))
    names = dict(enumerate(LABELS))
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint("minilm"), num_labels=len(LABELS), id2label=names)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    for start in range(0, len(rows), 32):
        batch = rows[start : start + 32]
        encoded = tokenizer([row.text for row in batch], return_tensors="pt", padding=True, truncation=True, max_length=48)
        loss = model(**encoded, labels=torch.tensor([LABELS.index(row.label) for row in batch])).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    kept = folder / "checkpoint"
    model.eval().save_pretrained(kept)
    tokenizer.save_pretrained(kept)
    return kept, export(kept, "text-classification", folder / "bundle").folder


def once(program: str, model: Path) -> float:
    """Seconds from the start of a new process to its correct answer."""
    started = time.perf_counter()
    ran = subprocess.run([sys.executable, "-c", program, str(model), TEXT], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - started
    assert ran.stdout.strip() == LABEL, ran.stdout
    return seconds


def function(home: Path, port: int) -> float:
    """Seconds from the start of the function's process to its correct answer by HTTP."""
    environment = {**os.environ, "PORT": str(port), "MLAAS_HOST": "127.0.0.1", "MLAAS_ROOT": str(home), "MLAAS_HOME": str(home / "home")}
    body = {"model": {"path": "bundle", "storage_type": "local"}, "predict_input": {"input_text": [TEXT]}}
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlaas.serve", "functions/classify"], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            try:
                answer = requests.post(f"http://127.0.0.1:{port}", json=body, timeout=30)
                break
            except requests.ConnectionError:
                assert process.poll() is None, "the function ended"
                time.sleep(0.005)
        seconds = time.perf_counter() - started
        assert answer.json()["predictions"][0]["label"] == LABEL, answer.text
        return seconds
    finally:
        process.terminate()
        process.wait()


def table(record: dict[str, Any]) -> str:
    """What `record` says, as Markdown."""
    rows = [[way, value, record["ratios"].get(way, 1)] for way, value in record["medians"].items()]
    return machine.markdown(["from process start to the first correct answer", "s (median)", "times faster than torch"], rows)


def main() -> int:
    """Measure, print, record; 1 if the ONNX path is not ten times faster."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--port", type=int, default=18423)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint, bundle = prepare(folder)
        ways = {
            "onnx": lambda: once(ONNX, bundle),
            "function": lambda: function(folder, options.port),
            "torch": lambda: once(TORCH, checkpoint),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(options.rounds + 1):
            for way, measure in ways.items():
                took = measure()
                if number:  # the first round warms the file cache
                    seconds[way].append(round(took, 4))
    medians = {way: round(statistics.median(values), 3) for way, values in seconds.items()}
    ratios = {way: round(medians["torch"] / medians[way], 1) for way in ("onnx", "function")}
    for way, value in medians.items():
        ratio = f", {ratios[way]} times faster than torch + transformers" if way in ratios else ""
        print(f"{way:9} {value:6.3f} s from process start to the first correct answer (median of {options.rounds}){ratio}")
    record = {"command": machine.command(), **machine.described(), "seconds": seconds, "medians": medians, "ratios": ratios}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=2) + "\n")
    return 0 if ratios["onnx"] >= 10 else 1


if __name__ == "__main__":
    sys.exit(main())
