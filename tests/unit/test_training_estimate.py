"""How much memory a run is said to need, and what is refused for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")
import torch
from transformers import AutoModel, BertConfig, DistilBertConfig, LongformerConfig

from mlaas.contracts import EarlyStopping, Lora, ModelTrain, TrainRequest, parse
from mlaas.errors import InvalidRequest
from mlaas.testing.tiny_checkpoints import write_checkpoint, write_rows
from mlaas.training import estimate
from mlaas.training.estimate import BACKWARD, Estimate, Shape
from mlaas.training.optimization import Compute
from mlaas.training.preparing import prepared
from mlaas.training.progress import Meter, Report
from mlaas.training.run import Sources, train

CPU = Compute(torch.device("cpu"))
LARGE = BertConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
LONG = LongformerConfig(
    hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096, attention_window=[512] * 24,
    vocab_size=50265, max_position_embeddings=4098, type_vocab_size=1,
)  # fmt: skip


def test_a_layer_keeps_what_the_paper_says() -> None:
    b, s, h, a = 4, 512, 1024, 16
    assert estimate.layer_activations(LARGE, Shape(rows=b, tokens=s), 2) == pytest.approx(s * b * h * (34 + 5 * a * s / h))


def test_other_names_of_the_same_sizes_are_understood() -> None:
    distil = DistilBertConfig(dim=1024, n_layers=24, n_heads=16, hidden_dim=4096)
    shape = Shape(rows=2, tokens=64)
    assert estimate.layer_activations(distil, shape, 4) == estimate.layer_activations(LARGE, shape, 4)


def test_attention_in_windows_grows_with_the_length_and_not_with_its_square() -> None:
    at = {tokens: estimate.layer_activations(LONG, Shape(rows=1, tokens=tokens), 4) for tokens in (1024, 2048, 4096)}
    assert at[4096] == 2 * at[2048] == 4 * at[1024]
    full = {tokens: estimate.layer_activations(LARGE, Shape(rows=1, tokens=tokens), 4) for tokens in (1024, 4096)}
    assert full[4096] > 8 * full[1024]


@pytest.mark.parametrize(("config", "millions"), [(LARGE, 335.1), (LONG, 434.6)])
def test_the_parameters_of_large_shapes_are_counted_without_their_weights(config: object, millions: float) -> None:
    assert estimate.parameters(AutoModel, config) / 1e6 == pytest.approx(millions, abs=0.1)


def of(settings: ModelTrain, objective: str = "text-classification", tokens: int = 512, trained: int = 335_000_000) -> Estimate:
    return estimate.estimate(LARGE, 335_000_000, trained, Shape(rows=8, tokens=tokens), settings, CPU, objective)


def test_what_saves_memory_is_seen_to_save_it() -> None:
    plain = of(ModelTrain())
    assert plain.weights + plain.gradients + plain.optimizer == 16 * 335_000_000
    recomputed = of(ModelTrain(gradient_checkpointing=True))
    assert recomputed.activations < plain.activations * (BACKWARD + 3) / 24
    adapted = of(ModelTrain(lora=Lora()), trained=1_000_000)
    assert adapted.gradients + adapted.optimizer < (plain.gradients + plain.optimizer) / 100
    assert of(ModelTrain(), tokens=256).activations < plain.activations / 2
    assert of(ModelTrain(), "masked-lm").logits > plain.logits == 0


def test_the_best_weights_are_counted_twice_where_they_are_kept() -> None:
    assert of(ModelTrain(keep="best")).weights == of(ModelTrain(early_stopping=EarlyStopping())).weights == 2 * of(ModelTrain()).weights


def test_half_precision_halves_activations_and_adds_a_copy_of_the_weights() -> None:
    half = estimate.estimate(LARGE, 10, 10, Shape(rows=8, tokens=8), ModelTrain(), Compute(CPU.where, torch.bfloat16), "")
    full = estimate.estimate(LARGE, 10, 10, Shape(rows=8, tokens=8), ModelTrain(), CPU, "")
    assert half.activations < 0.55 * full.activations
    assert half.weights == full.weights + 20


def test_processes_that_share_a_machines_memory_are_each_counted(tmp_path: Path) -> None:
    one = of(ModelTrain())
    assert one.of(3).needed == 3 * one.needed
    assert one.of(3).available == one.available
    computing, report = Compute(torch.device("cpu")), Meter(report=lambda report: None)
    sources = Sources(checkpoint=write_checkpoint(tmp_path / "tiny"), tokenizer=None, table=write_rows(tmp_path / "rows.jsonl"))
    request = {"model": {"path": "t", "objective": "text-classification"}, "dataset": {"path": "r"}, "model_save": {"path": "s"}}
    needed = []
    for ranks in ((1, 1), (2, 2), (2, 1)):
        prepared(parse(TrainRequest, request), sources, report, computing, tmp_path, ranks)
        needed.append((report.estimate or {})["needed"])
    assert needed[1] > 1.9 * needed[0] > 1.9 * needed[2]


def test_what_cannot_fit_by_far_is_refused_and_what_may_not_fit_is_said() -> None:
    found = of(ModelTrain())
    estimate.check(replace(found, available=None))
    estimate.check(replace(found, available=found.needed))
    assert "warning" not in replace(found, available=found.needed).figures()
    tight = replace(found, available=int(found.needed / 1.4))
    estimate.check(tight)
    assert tight.figures()["warning"]
    with pytest.raises(InvalidRequest, match="GB of memory and there are") as caught:
        estimate.check(replace(found, available=int(found.needed / 1.6)))
    assert caught.value.field == "model_train.batch_size"
    with pytest.raises(InvalidRequest) as caught:
        estimate.check(replace(found, available=10**9))
    assert caught.value.field == "model.path", "no batch is small enough"


def test_a_model_that_does_not_fit_is_refused_before_its_weights_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "there_is", lambda where: 500_000)
    sources = Sources(checkpoint=write_checkpoint(tmp_path / "tiny"), tokenizer=None, table=write_rows(tmp_path / "rows.jsonl"))
    (tmp_path / "rows.jsonl").unlink()  # reading the data comes after
    request = {"model": {"path": "t", "objective": "text-classification"}, "dataset": {"path": "r"}, "model_save": {"path": "s"}}
    with pytest.raises(InvalidRequest) as caught:
        train(parse(TrainRequest, request), sources, tmp_path / "out", lambda report: None)
    assert caught.value.field == "model.path"


@pytest.mark.training
def test_reports_hold_the_estimate(tmp_path: Path) -> None:
    reports: list[Report] = []
    sources = Sources(checkpoint=write_checkpoint(tmp_path / "tiny"), tokenizer=None, table=write_rows(tmp_path / "rows.jsonl"))
    request = {"model": {"path": "t", "objective": "text-classification"}, "dataset": {"path": "r"}, "model_save": {"path": "s"}}
    outcome = train(parse(TrainRequest, request | {"model_train": {"epochs": 1}}), sources, tmp_path / "out", reports.append)
    assert reports[-1].estimate is not None
    assert 0.8e9 < reports[-1].estimate["needed"] < 1.2e9
    assert reports[-1].estimate["available"] > 0
    assert outcome.provenance["training"]["memory"]["estimated"] == reports[-1].estimate["needed"]
