"""Measures the ways of bench/precision.py that one Python has: run by it, with the Python that has OpenVINO where there is one.

    python bench/precision_measure.py FOLDER

FOLDER has the bundle with its variants, and rows.json, the held-out rows. Writes FOLDER/measured.json. The ways take turns, round by round.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mlaas import engine, sessions
from mlaas.bundles import Bundle, open_bundle
from mlaas.precision import PUBLISHED

BATCH = 32
TOLERATED = 1e-3


def ways(bundle: Bundle) -> dict[str, engine.Model]:
    """The ways that this Python and this processor have, by name."""
    base = engine.load(bundle, variant="int8", exactly=True)  # always the CPU provider

    def on(provider: sessions.Provider, variant: str) -> engine.Model:
        return base.on(sessions.open_session(bundle, 0, [provider], variant), variant)

    available, flags = onnxruntime.get_available_providers(), sessions.cpu_flags()
    found = {"fp32 CPU": on(sessions.CPU, PUBLISHED)}
    for name, variant in (("fp32 OpenVINO", PUBLISHED), ("bf16 OpenVINO", "bf16")):
        for provider in sessions.providers(available, flags, variant):
            if provider[0].startswith("OpenVINO"):
                found[name] = on(provider, variant)
    return {**found, "int8 dynamic CPU": on(sessions.CPU, "int8-dynamic"), "int8 static CPU": base}


def probabilities(model: engine.Model, texts: list[str]) -> tuple[NDArray[np.float64], float, float]:
    """Probabilities (texts, labels), and tokens per second of wall time and of CPU time, in batches of BATCH texts of like length."""
    encoded = sorted(enumerate(model.encode(texts)), key=lambda one: len(one[1].ids))
    logits = np.empty((len(texts), len(model.bundle.labels)))
    tokens = sum(len(one.ids) for _, one in encoded)
    started, used = time.perf_counter(), time.process_time()
    for at in range(0, len(encoded), BATCH):
        feed, _ = model._feed([one for _, one in encoded[at : at + BATCH]])
        logits[[index for index, _ in encoded[at : at + BATCH]]] = model.session.run(["logits"], feed)[0]
    seconds, busy = time.perf_counter() - started, time.process_time() - used
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    return exponents / exponents.sum(1, keepdims=True), tokens / seconds, tokens / busy


def measured(models: dict[str, engine.Model], rows: list[dict[str, str]], rounds: int) -> dict[str, Any]:
    """What each way came to; paces are medians of the rounds."""
    texts = [row["text"] for row in rows]
    labels = next(iter(models.values())).bundle.labels
    right = np.array([labels.index(row["label"]) for row in rows])
    found: dict[str, NDArray[np.float64]] = {}
    paces: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    for number in range(rounds + 1):
        for name, model in models.items():
            found[name], *pace = probabilities(model, texts)
            if number:  # the first time a graph sees a shape it is slower
                paces[name].append((pace[0], pace[1]))
        print(f"round {number} of {rounds}", flush=True)
    exact = found["fp32 CPU"]
    result: dict[str, Any] = {}
    for name, ours in found.items():
        apart = np.abs(ours - exact).max(1)
        wall, busy = (statistics.median(pace[place] for pace in paces[name]) for place in (0, 1))
        result[name] = {
            "tokens_per_second": round(wall),
            "tokens_per_cpu_second": round(busy),
            "accuracy": round(float((ours.argmax(1) == right).mean()), 5),
            "same_label": round(float((ours.argmax(1) == exact.argmax(1)).mean()), 5),
            "largest_difference": float(f"{apart.max():.3g}"),
            "rows_beyond_0.001": round(float((apart > TOLERATED).mean()), 4),
        }
    return result


def main() -> int:
    """Measure what is in the folder."""
    folder = Path(sys.argv[1])
    asked = json.loads((folder / "rows.json").read_text("utf-8"))
    models = ways(open_bundle(folder / "bundle"))
    result = {"onnxruntime": onnxruntime.__version__, "ways": measured(models, asked["rows"], asked["rounds"])}
    (folder / "measured.json").write_text(json.dumps(result), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
