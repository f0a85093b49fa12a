"""Classifiers without a neural network: TF-IDF of words and letters in a row, then a linear model or gradient boosting.

They train in seconds to minutes on a CPU, need no checkpoint, and are the figure that a transformer has to beat. Imports no torch.
"""

from __future__ import annotations

import importlib.metadata
import json
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import bundles
from ..contracts import TrainRequest
from ..ngrams import MODEL_TYPE, NgramTokenizer, ngrams
from .misspelling import copies, describe, misspelt
from .outcome import Outcome
from .pipeline_export import compare, write_graph
from .progress import Meter, Report
from .rows import Row, check_labels, read_rows
from .scores import classification_figures, confusion
from .splits import split
from .staging import staged
from .weights import class_weights

__all__ = ["train"]

FEATURES = 50_000  # n-grams that are kept, those in most texts
SELECTED = 512  # of them, those that say most about the class, for boosting: it looks at every feature for every split
SEEN_TWICE = 1000  # texts from which on an n-gram of only one text is noise
MAX_LENGTH = 65_536  # n-grams of a text that are read
ROUNDS, STEPS = 15, 10  # how often progress is told, and iterations in between
UNNAMED = "[NoSite]"  # as in text_classification


@dataclass(frozen=True)
class Side:
    """log(1 + count) of the n-grams (rows, features), sparse, and the class of each row.

    Not scikit-learn's `sublinear_tf`, 1 + log(count): skl2onnx 1.20 exports it as log(1 + count), and so not faithfully.
    """

    counts: Any
    classes: NDArray[np.int64]


def train(request: TrainRequest, table: Path, out: Path, report: Callable[[Report], None]) -> Outcome:
    """Train as `request` says and leave a bundle in the folder `out`, which is new or empty.

    The same for the same seed. An exception from `report` cancels: it passes through, and nothing is left in `out`. Raises
    InvalidRequest for data that cannot work, ParityError if the export is not faithful.
    """
    meter = Meter(report=report)
    meter.phase("prepare")
    out.parent.mkdir(parents=True, exist_ok=True)
    read = read_rows(table, request.dataset, labelled=True, work=out.parent)
    labels = check_labels(read.rows)
    sides = split(read.rows, request.dataset.train_test_split, request.model_train.seed)
    given, held_out = ([read.rows[index] for index in side] for side in sides)
    fitted = [*given, *copies(given, request)]
    tokenizer = _vocabulary([row.text for row in fitted], meter)
    training, test = (_side(rows, labels, tokenizer, meter) for rows in (fitted, held_out))
    transform, classifier = _steps(request, training, _weights(request, labels, training))
    _fit(classifier, _features(transform, training.counts), training.classes, _features(transform, test.counts), test.classes, meter)
    probabilities = classifier.predict_proba(_features(transform, test.counts))
    evaluation = _evaluation(probabilities, test.classes, labels)
    if wrong := misspelt(held_out, request):
        there = _side(wrong, labels, tokenizer, meter)
        figures = _evaluation(classifier.predict_proba(_features(transform, there.counts)), there.classes, labels)
        evaluation |= describe(figures, request, held_out, wrong)
    made = _provenance(request, meter, tokenizer)
    with staged(out) as folder:
        meter.phase("export")
        tokenizer.save(folder / "tokenizer.json")
        write_graph([*transform, classifier], len(tokenizer.vocabulary), folder)
        _write_config(folder, str(request.model.architecture), labels, tokenizer)
        meter.phase("parity")
        began = time.perf_counter()
        parity = compare(folder / "model.onnx", [row.text for row in held_out], probabilities, tokenizer, meter.tick)
        variants = (_variant(folder / "model.onnx", parity["rows"], time.perf_counter() - began, evaluation),)
        evaluation["parity"] = parity
        bundles.write_manifest(
            folder, objective=str(request.model.objective), labels=labels, max_length=MAX_LENGTH, provenance={**made, "parity": parity}
        )
    dataset = {"samples_train": len(given), "samples_test": len(held_out), "tokens": int(training.counts.expm1().sum().round())}
    dropped = {name: getattr(read, name) for name in ("dropped_empty", "dropped_unlabelled", "dropped_duplicates")}
    return Outcome(
        bundle=bundles.open_bundle(out),
        history=meter.history,
        evaluation=evaluation,
        provenance=made,
        variants=variants,
        dataset={**dataset, **dropped, "classes": len(labels), "features": len(tokenizer.vocabulary)},
    )


def _evaluation(probabilities: NDArray[np.float64], classes: NDArray[np.int64], labels: Sequence[str]) -> dict[str, Any]:
    matrix = confusion(classes, probabilities.argmax(axis=1), len(labels))
    return {"loss": _loss(probabilities, classes), **classification_figures(matrix, labels, unnamed=UNNAMED)}


def _variant(graph: Path, texts: int, seconds: float, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of the one graph there is; its pace is from the text on, counting included."""
    return {
        "variant": "fp32",
        "file": graph.name,
        "served": True,
        "bytes": graph.stat().st_size,
        "texts": texts,
        "texts_per_second": round(texts / seconds, 1),
        "metrics": {name: value for name, value in evaluation.items() if isinstance(value, int | float)},
    }


def _vocabulary(texts: Sequence[str], meter: Meter) -> NgramTokenizer:
    """The n-grams of most texts, at most FEATURES; of two in as many texts the one that comes first in the alphabet."""
    seen: Counter[str] = Counter()
    for text in texts:
        seen.update(set(ngrams(text)))
        meter.tick()
    least = 2 if len(texts) >= SEEN_TWICE else 1
    kept = sorted((each for each, count in seen.items() if count >= least), key=lambda each: (-seen[each], each))[:FEATURES]
    return NgramTokenizer({each: number for number, each in enumerate(sorted(kept), start=1)}, MAX_LENGTH)


def _side(rows: Sequence[Row], labels: Sequence[str], tokenizer: NgramTokenizer, meter: Meter) -> Side:
    from scipy.sparse import csr_matrix

    number = {label: index for index, label in enumerate(labels)}
    columns: list[int] = []
    values: list[int] = []
    ends = [0]
    for row in rows:
        found = Counter(each - 1 for each in tokenizer.encode_batch([row.text])[0].ids if each)
        columns += found.keys()
        values += found.values()
        ends.append(len(columns))
        meter.tick()
    counts = csr_matrix((np.array(values, np.float32), np.array(columns, np.int64), ends), (len(rows), len(tokenizer.vocabulary)))
    return Side(counts.log1p(), np.array([number[row.label] for row in rows]))


def _weights(request: TrainRequest, labels: Sequence[str], training: Side) -> dict[int, float] | None:
    asked = request.dataset.class_weights
    if asked is None:
        return None
    return dict(enumerate(class_weights(asked, labels, np.bincount(training.classes, minlength=len(labels)).tolist())))


def _steps(request: TrainRequest, training: Side, weights: dict[int, float] | None) -> tuple[list[Any], Any]:
    """The fitted steps before the classifier, and the classifier, not fitted."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.feature_selection import SelectKBest, chi2
    from sklearn.linear_model import LogisticRegression

    weighed = TfidfTransformer()
    features = weighed.fit_transform(training.counts)
    architecture, seed = str(request.model.architecture), request.model_train.seed
    if architecture == "tfidf-linear":
        return [weighed], LogisticRegression(C=10.0, max_iter=STEPS, warm_start=True, random_state=seed, class_weight=weights)
    selected = SelectKBest(chi2, k=min(SELECTED, features.shape[1])).fit(features, training.classes)
    least = min(20, max(1, features.shape[0] // 20))
    boosting = HistGradientBoostingClassifier(
        max_iter=STEPS,
        max_leaf_nodes=15,
        min_samples_leaf=least,
        l2_regularization=1.0,
        warm_start=True,
        early_stopping=False,
        random_state=seed,
        class_weight=weights,
    )
    return [weighed, selected], boosting


def _features(transform: Sequence[Any], counts: Any) -> Any:
    for step in transform:
        counts = step.transform(counts)
    return counts.toarray() if len(transform) > 1 else counts  # histograms need dense features, float32 as in the graph


def _fit(classifier: Any, features: Any, classes: NDArray[np.int64], held_out: Any, expected: NDArray[np.int64], meter: Meter) -> None:
    """Fit in ROUNDS of STEPS iterations, each going on where the one before stopped; fewer if it has converged."""
    boosting = hasattr(classifier, "max_leaf_nodes")
    meter.steps, meter.steps_per_epoch = ROUNDS * STEPS, STEPS
    meter.history.update(loss=[], accuracy=[], validation_loss=[], steps=[])
    for number in range(ROUNDS):
        meter.phase("train")
        if boosting:
            classifier.set_params(max_iter=STEPS * (number + 1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged after STEPS iterations is the intention
            classifier.fit(features, classes)
        loss = _loss(classifier.predict_proba(features), classes)
        probabilities = classifier.predict_proba(held_out)
        for _ in range(STEPS):
            meter.count(0, loss, 0.0)
        meter.history["loss"].append(round(loss, 6))
        meter.history["validation_loss"].append(round(_loss(probabilities, expected), 6))
        meter.history["accuracy"].append(round(float((probabilities.argmax(axis=1) == expected).mean()), 6))
        meter.tick()
        if not boosting and int(np.max(classifier.n_iter_)) < STEPS:
            break


def _loss(probabilities: NDArray[np.float64], classes: NDArray[np.int64]) -> float:
    """Mean cross entropy."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(classes)), classes], 1e-12)).mean())


def _write_config(folder: Path, architecture: str, labels: Sequence[str], tokenizer: NgramTokenizer) -> None:
    config = {
        "model_type": MODEL_TYPE,
        "architecture": architecture,
        "vocab_size": tokenizer.get_vocab_size(),
        "pad_token_id": 0,
        "id2label": {str(index): label for index, label in enumerate(labels)},
    }
    (folder / "config.json").write_text(json.dumps(config, ensure_ascii=False, indent=1), "utf-8")


def _provenance(request: TrainRequest, meter: Meter, tokenizer: NgramTokenizer) -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in ("scikit-learn", "skl2onnx", "onnx", "numpy")}
    return {
        "objective": str(request.model.objective),
        "base": {"architecture": request.model.architecture},
        "request": request.model_dump(mode="json", exclude_none=True),
        "training": {"device": "cpu", "steps": meter.step, "features": len(tokenizer.vocabulary)},
        "versions": versions,
        "created": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
