"""From process start to the first correct classification: ONNX Runtime against torch + transformers, same model, one run.

    python bench/cold_start.py

Trains a small three-class classifier from the MiniLM-L6 checkpoint (300 synthetic strings, three epochs), keeps it both as a PyTorch
checkpoint and as the ONNX bundle that the platform serves, then starts a new process for each measurement, alternating, and takes medians:

- onnx: a process that loads the bundle through `mlaas` and classifies one string
- function: `python -m mlaas.serve functions/classify`, from its start to the HTTP answer; the request names the model
- preloaded: the same with MLAAS_PRELOAD_MODEL, which a platform sets where it knows what will be asked for
- torch: a process that loads the checkpoint through transformers and classifies the same string

Python's files are compiled first, as in the images. The function's seconds are also given by phase, from its log and Server-Timing:
until Python runs the server's first line, imports of the server, imports of the function until it listens, the load of the model (by the
request, or from listening on where it is preloaded), and the rest. CPU time is that of the function's process until the answer.

Prints the ratios and writes bench/results/cold_start.json. Returns 1 if the ONNX path is not ten times as fast as torch.
"""

from __future__ import annotations

import argparse
import compileall
import http.client
import json
import os
import random
import re
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import machine

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "cold_start.json"
TEXT, LABEL = "Istituto Nazionale di Fisica Nucleare, Laboratori Nazionali di Frascati, I-00044 Frascati, Italy", "LNF"
LABELS = ("LNF", "PI", "[NoSite]")
PROMISED = 0.5  # seconds from a function's start to its first correct answer, on two quiet cores
PHASES = ("python", "server", "function", "load", "answer")
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


def function(home: Path, port: int, preload: bool) -> tuple[float, dict[str, float]]:
    """Seconds from the start of the function's process to its correct answer by HTTP, and those of each phase and of the CPU."""
    model = {"path": "bundle", "storage_type": "local"}
    environment = {**os.environ, "PORT": str(port), "MLAAS_HOST": "127.0.0.1", "MLAAS_ROOT": str(home), "MLAAS_HOME": str(home / "home")}
    environment |= {"MLAAS_PRELOAD_MODEL": json.dumps(model) if preload else ""}
    body = json.dumps({"model": model, "predict_input": {"input_text": [TEXT]}})
    with tempfile.TemporaryFile("w+") as log:
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "mlaas.serve", "functions/classify"], cwd=ROOT, env=environment, stderr=log)
        try:
            answer, timing = ask(process, port, body)
            seconds = time.perf_counter() - started
            cpu = cpu_seconds(process.pid)
            assert json.loads(answer)["predictions"][0]["label"] == LABEL, answer
        finally:
            process.terminate()
            process.wait()
        log.seek(0)
        ready = next(line for line in map(json.loads, log) if line["event"] == "function.ready")
    # The request may wait for a preload that began before it: its load is then counted from listening on.
    load = ready["ready_after"] - ready["listening_after"] if preload else timing.get("load", 0.0)
    spans = [ready["begun_after"], ready["imported_after"], ready["listening_after"]]
    phases = [spans[0], spans[1] - spans[0], spans[2] - spans[1], load, seconds - spans[2] - load]
    return seconds, {**dict(zip(PHASES, phases, strict=True)), "cpu": cpu}


def ask(process: subprocess.Popen[bytes], port: int, body: str) -> tuple[bytes, dict[str, float]]:
    """The first answer of a function that is being started, and its Server-Timing in seconds."""
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("POST", "/", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            spans = re.findall(r"(\w+);dur=([0-9.]+)", answer.headers.get("Server-Timing", ""))
            return answer.read(), {name: float(milliseconds) / 1000 for name, milliseconds in spans}
        except ConnectionError:
            assert process.poll() is None, "the function ended"
            time.sleep(0.002)
        finally:
            connection.close()


def cpu_seconds(pid: int) -> float:
    """Of a process so far, its own and the kernel's for it."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def compiled() -> None:
    """Have Python's files compiled, whatever PYTHONDONTWRITEBYTECODE says: as `make setup` and the images do."""
    for folder in (sysconfig.get_path("purelib"), ROOT / "shared", ROOT / "functions"):
        compileall.compile_dir(folder, quiet=2, workers=os.cpu_count() or 1, rx=re.compile("/tests?/"))


def table(record: dict[str, Any]) -> str:
    """What `record` says, as Markdown."""
    rows = [[way, value, record["ratios"].get(way)] for way, value in record["medians"].items()]
    ways = machine.markdown(["way", "seconds to the first answer", "times faster than torch"], rows)
    phases = [[way, *(found[phase] for phase in (*PHASES, "cpu"))] for way, found in record.get("phases", {}).items()]
    if not phases:  # a record of before they were measured
        return ways
    return f"{ways}\n\nOf these seconds, by phase, and CPU time:\n\n" + machine.markdown(["way", *PHASES, "CPU"], phases)


def main() -> int:
    """Measure, print, record; 1 if the ONNX path is not ten times faster."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--port", type=int, default=18423)
    options = parser.parse_args()
    compiled()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint, bundle = prepare(folder)
        ways: dict[str, Any] = {
            "onnx": lambda: (once(ONNX, bundle), {}),
            "function": lambda: function(folder, options.port, preload=False),
            "preloaded": lambda: function(folder, options.port, preload=True),
            "torch": lambda: (once(TORCH, checkpoint), {}),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        parts: dict[str, list[dict[str, float]]] = {"function": [], "preloaded": []}
        for number in range(options.rounds + 1):
            for way, measure in ways.items():
                took, phases = measure()
                if number:  # the first round warms the file cache
                    seconds[way].append(round(took, 4))
                    parts.get(way, []).append(phases)
            print(f"round {number} of {options.rounds}", file=sys.stderr, flush=True)
    return report(seconds, parts, options)


def report(seconds: dict[str, list[float]], parts: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> int:
    """Print and keep the medians of what was measured; 1 if the ONNX path is not ten times faster."""
    medians = {way: round(statistics.median(values), 3) for way, values in seconds.items()}
    ratios = {way: round(medians["torch"] / value, 1) for way, value in medians.items() if way != "torch"}
    phases = {way: {one: round(statistics.median(run[one] for run in runs), 3) for one in runs[0]} for way, runs in parts.items()}
    for way, value in medians.items():
        ratio = f", {ratios[way]} times faster than torch + transformers" if way in ratios else ""
        print(f"{way:9} {value:6.3f} s from process start to the first correct answer (median of {options.rounds}){ratio}")
    for way, found in phases.items():
        print(f"{way:9} " + ", ".join(f"{one} {value:.3f}" for one, value in found.items()))
        print(f"{way:9} {'within' if medians[way] < PROMISED else 'NOT within'} {PROMISED} s")
    record = {
        "command": machine.command(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        **machine.described(),
        "seconds": seconds,
        "medians": medians,
        "ratios": ratios,
        "phases": phases,
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=2) + "\n")
    return 0 if ratios["onnx"] >= 10 else 1


if __name__ == "__main__":
    sys.exit(main())
