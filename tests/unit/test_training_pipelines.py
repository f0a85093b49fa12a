"""Classifiers without a neural network: trained through the same request, exported to ONNX, served by the same classifier."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("skl2onnx")
from onnx import numpy_helper
from threadpoolctl import threadpool_limits

from mlaas import classifier, engine
from mlaas.contracts import TrainRequest, parse
from mlaas.errors import InvalidRequest
from mlaas.ngrams import NgramTokenizer, ngrams
from mlaas.training import pipeline_export, pipelines
from mlaas.training.outcome import Outcome
from mlaas.training.supported import check_architecture

pytestmark = pytest.mark.training
CITIES = {"LNF": ("Frascati", "frascati"), "NA": ("Napoli", "Nápoli"), "PI": ("Pisa", "PISA")}


def asking(architecture: str, **changes: Any) -> TrainRequest:
    return parse(
        TrainRequest,
        {
            "model": {"architecture": architecture, "objective": "text-classification"},
            "dataset": {"path": "rows.jsonl", "train_test_split": 0.2},
            "model_save": {"path": "trained"},
            **changes,
        },
    )


def write_rows(file: Path, count: int = 60) -> Path:
    draw = random.Random(2)
    rows = []
    for number in range(count):
        label = sorted(CITIES)[number % 3]
        words = [
            "INFN",
            draw.choice(CITIES[label]),
            *draw.choices(("Italy", "Sezione", "via", "I-00044", "Dip. di Fisica", "Università"), k=4),
        ]
        draw.shuffle(words)
        rows.append({"text": ", ".join(words) + f" {number}", "label": label})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


@pytest.fixture(scope="module", params=["tfidf-linear", "tfidf-boosting"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, list[Any]]:
    folder = tmp_path_factory.mktemp("pipeline")
    reports: list[Any] = []
    with threadpool_limits(1):  # with more, so little work is mostly waiting where the cores are busy
        return pipelines.train(asking(request.param), write_rows(folder / "rows.jsonl"), folder / "out", reports.append), reports


def test_a_pipeline_learns_and_is_served_by_classify_like_any_other_model(trained: tuple[Outcome, list[Any]], tmp_path: Path) -> None:
    outcome, _ = trained
    assert outcome.evaluation["accuracy"] > 0.9
    assert outcome.bundle.labels == ("LNF", "NA", "PI")
    model = engine.load(outcome.bundle)
    model.warm_up()
    texts = ["Laboratori di FRASCATI", "university of Pisa, Italy", "napoli", ""]
    found = classifier.classify(model, texts, top_k=3)
    assert [one.label for one in found[:3]] == ["LNF", "PI", "NA"]
    assert all(sum(score.score for score in one.scores) == pytest.approx(1.0, abs=1e-5) for one in found)
    json.dumps([outcome.history, outcome.evaluation, outcome.dataset, outcome.provenance], allow_nan=False)
    assert not [file for file in outcome.bundle.folder.iterdir() if file.suffix in (".pkl", ".joblib", ".pickle")]


def test_progress_is_told_and_the_loss_falls(trained: tuple[Outcome, list[Any]]) -> None:
    outcome, reports = trained
    assert list(dict.fromkeys(report.phase for report in reports)) == ["prepare", "train", "export", "parity"]
    percents = [report.percent for report in reports]
    assert percents == sorted(percents)
    assert outcome.history["loss"][-1] <= outcome.history["loss"][0]


def test_the_graph_gives_what_scikit_learn_gives_on_thousands_of_strings(tmp_path: Path) -> None:
    """Strings of many scripts, in no language: what ONNX's own tokenizers split otherwise."""
    draw = random.Random(3)
    alphabet = "aàÀbßcçdeéfgİiıñøœΣσςдж東京 \t\n.,;-_'’()0129٣½ﬁ"
    texts = ["".join(draw.choices(alphabet, k=draw.randint(1, 60))) for _ in range(4000)]
    table = tmp_path / "rows.jsonl"
    table.write_text("".join(json.dumps({"text": text, "label": "é" if "e" in text.casefold() else "x"}) + "\n" for text in texts), "utf-8")
    outcome = pipelines.train(
        asking("tfidf-linear", dataset={"path": "rows.jsonl", "train_test_split": 0.75}), table, tmp_path / "out", lambda report: None
    )
    parity = outcome.evaluation["parity"]
    assert parity["rows"] > 2500
    assert parity["agreement"] == 1.0
    assert parity["max_abs_diff"] < 1e-5


def test_a_graph_that_computes_something_else_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faithful = pipelines.write_graph

    def unfaithful(steps: Any, features: int, folder: Path) -> None:
        faithful(steps, features, folder)
        model = onnx.load(folder / "model.onnx")
        smallest = next(tensor for tensor in model.graph.initializer if tensor.name == "smallest")
        smallest.CopyFrom(numpy_helper.from_array(np.array(0.4, np.float32), "smallest"))
        onnx.save(model, folder / "model.onnx")

    monkeypatch.setattr(pipelines, "write_graph", unfaithful)
    table = write_rows(tmp_path / "rows.jsonl")
    with pytest.raises(pipeline_export.PipelineParityError, match="not published"):
        pipelines.train(asking("tfidf-linear"), table, tmp_path / "out", lambda report: None)
    assert [each.name for each in tmp_path.iterdir()] == ["rows.jsonl"]


def test_the_same_seed_gives_the_same_model(tmp_path: Path) -> None:
    table = write_rows(tmp_path / "rows.jsonl")
    digests = {pipelines.train(asking("tfidf-linear"), table, tmp_path / name, lambda report: None).bundle.digest for name in ("a", "b")}
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model": {"architecture": "tfidf-linear", "objective": "masked-lm"}}, "model.objective"),
        ({"model_train": {"epochs": 3}}, "model_train.epochs"),
        ({"tokenizer": {"path": "x"}}, "tokenizer"),
    ],
)
def test_what_only_neural_networks_have_is_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_architecture(asking("tfidf-linear", **changes))
    assert caught.value.field == field
    check_architecture(asking("tfidf-linear", model_train={"seed": 3}))


def test_an_architecture_and_a_path_are_too_much() -> None:
    with pytest.raises(InvalidRequest, match="one of"):
        asking("tfidf-linear", model={"architecture": "tfidf-linear", "path": "x", "objective": "text-classification"})


def test_ngrams_are_words_pairs_of_words_and_letters_within_words() -> None:
    assert list(ngrams("Nápoli, I")) == [
        "wnapoli", "wi", "wnapoli i",
        *(f"c{each}" for size in (2, 3, 4, 5) for each in (" napoli "[at : at + size] for at in range(9 - size))),
        "c i", "ci ", "c i ",
    ]  # fmt: skip


def test_a_long_text_is_read_up_to_the_maximum_and_said_to_be_truncated() -> None:
    tokenizer = NgramTokenizer({"wab": 1, "cab": 2}, max_length=100)
    long, short = tokenizer.encode_batch(["ab " * 80, "ab xyz"])
    assert (len(long.ids), bool(long.overflowing)) == (100, True)
    assert (sorted(set(short.ids)), bool(short.overflowing)) == ([0, 1, 2], False)
