"""From process start to the first correct classification: ONNX Runtime against torch + transformers, same model, one run.

    python bench/cold_start.py

Trains a small three-class classifier from the MiniLM-L6 checkpoint (synthetic strings, one epoch), keeps it both as a PyTorch checkpoint
and as the ONNX bundle that the platform serves, then starts a new process for each measurement, alternating, and takes medians:

- onnx: a process that loads the bundle through `mlaas` and classifies one string
- function: `python -m mlaas.serve functions/classify`, from its start to the HTTP answer
- torch: a process that loads the checkpoint through transformers and classifies the same string

Prints the ratios and writes bench/results/cold_start.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import requests

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "cold_start.json"
TEXT, LABEL = "Istituto Nazionale di Fisica Nucleare, Laboratori Nazionali di Frascati, I-00044 Frascati, Italy", "LNF"
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
    """The PyTorch checkpoint and the ONNX bundle of one trained model."""
    from mlaas.contracts import TrainRequest, parse
    from mlaas.samples import affiliations, checkpoint
    from mlaas.training import run

    rows = [row for row in affiliations(4000, seed=1) if row.label in ("LNF", "PI", "[NoSite]")][:900]
    table = folder / "rows.tsv"
    table.write_text("text\tlabel\n" + "".join(f"{row.text.replace(chr(9), ' ').replace(chr(34), '')}\t{row.label}\n" for row in rows))
    asked = {
        "model": {"path": "minilm", "objective": "text-classification"},
        "model_train": {"epochs": 2, "batch_size": 32, "max_length": 64, "optimizer": {"init_lr": 3e-4}},
        "dataset": {"path": "rows.tsv"},
        "model_save": {"path": "m"},
    }
    kept = folder / "checkpoint"
    write_graph = run.write_graph

    def keep_and_write(model: object, tokenizer: object, *rest: object) -> object:
        model.save_pretrained(kept)  # type: ignore[attr-defined]
        tokenizer.save_pretrained(kept)  # type: ignore[attr-defined]
        return write_graph(model, tokenizer, *rest)

    run.write_graph = keep_and_write  # the platform itself keeps only the ONNX export
    sources = run.Sources(checkpoint=checkpoint("minilm"), tokenizer=None, table=table)
    outcome = run.train(parse(TrainRequest, asked), sources, folder / "bundle", lambda report: None)
    print(f"trained: accuracy {outcome.evaluation['accuracy']:.3f} on {outcome.dataset['samples_test']} held-out synthetic rows")
    return kept, outcome.bundle.folder


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
    record = {"command": "python bench/cold_start.py", "cores": os.cpu_count(), "seconds": seconds, "medians": medians, "ratios": ratios}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=2) + "\n")
    return 0 if ratios["onnx"] >= 10 else 1


if __name__ == "__main__":
    sys.exit(main())
