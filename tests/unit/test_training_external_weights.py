"""Weights beside a graph: the same numbers from two files, and the same files each time."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from mlaas import bundles, classifier, engine
from mlaas.testing import tiny_models
from mlaas.training import external_weights, variants
from mlaas.training.batches import Batch

TEXTS = ["Laboratori di Frascati", "florence", ""]


def made(folder: Path) -> bundles.Bundle:
    """The tiny classifier with a million words more in its table than it has."""
    bundle = tiny_models.classifier(folder)
    graph = onnx.load(bundle.graph)
    tensor = max(graph.graph.initializer, key=lambda one: len(one.raw_data))
    table = onnx.numpy_helper.to_array(tensor)
    filled = np.vstack([table, np.random.default_rng(0).normal(size=(60_000, table.shape[1])).astype(table.dtype)])
    tensor.CopyFrom(onnx.numpy_helper.from_array(filled, tensor.name))
    onnx.save(graph, bundle.graph)
    return bundle


def digests(folder: Path) -> list[str]:
    return [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("model.onnx", external_weights.FILE)]


def test_a_graph_with_its_weights_beside_it_answers_the_same(tmp_path: Path) -> None:
    bundle = made(tmp_path / "model")
    before = classifier.classify(engine.load(bundle), TEXTS, 4)
    whole = bundle.graph.stat().st_size
    assert external_weights.put_beside(bundle.graph, small=100_000)
    assert bundle.graph.stat().st_size < 50_000 < whole * 0.9 < (bundle.graph.parent / external_weights.FILE).stat().st_size
    assert classifier.classify(engine.load(bundle), TEXTS, 4) == before


def test_the_same_graph_gives_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert external_weights.put_beside(made(tmp_path / name).graph, small=100_000)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_a_small_graph_and_one_that_has_weights_beside_it_stay_as_they_are(tmp_path: Path) -> None:
    bundle = made(tmp_path / "model")
    content = bundle.graph.read_bytes()
    assert not external_weights.put_beside(bundle.graph)
    assert bundle.graph.read_bytes() == content
    assert external_weights.put_beside(bundle.graph, small=100_000)
    files = digests(tmp_path / "model")
    assert not external_weights.put_beside(bundle.graph, small=1)
    assert digests(tmp_path / "model") == files


@pytest.mark.parametrize("kind", ["int8", "fp16"])
def test_variants_are_made_of_such_a_graph_too(tmp_path: Path, kind: str) -> None:
    bundle = made(tmp_path / "model")
    external_weights.put_beside(bundle.graph, small=100_000)
    inputs = {name: torch.ones(4, 6, dtype=torch.long) for name in ("input_ids", "attention_mask", "token_type_ids")}
    rows = [Batch(inputs=inputs, targets=torch.zeros(4), tokens=24)]
    assert variants.make(tmp_path / "model", [kind], lambda: rows) == {kind: f"variants/model.{kind}.onnx"}
