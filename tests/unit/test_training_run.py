"""Training runs with a really tiny BERT: what they learn, report, refuse and leave behind."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx
import torch
from transformers import BertForMaskedLM

from mlaas import classifier, engine
from mlaas.contracts import TrainRequest, parse
from mlaas.errors import InvalidRequest
from mlaas.testing.tiny_checkpoints import BIRDS, STONES, write_checkpoint, write_rows
from mlaas.training import parity, run
from mlaas.training.checkpoints import open_checkpoint
from mlaas.training.export import export
from mlaas.training.loop import fit
from mlaas.training.objectives import Scored, Tally
from mlaas.training.optimization import HEAD_FACTOR, Compute, has_bf16, optimizer, rate_at
from mlaas.training.progress import Meter, Report
from mlaas.training.run import Outcome, Sources, train


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "encoder")


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "language-model", BertForMaskedLM)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl")


def asking(objective: str = "text-classification", *, epochs: int = 5, lr: float = 3e-3, **settings: Any) -> TrainRequest:
    return parse(
        TrainRequest,
        {
            "model": {"path": "tiny", "objective": objective},
            "model_train": {"epochs": epochs, "batch_size": 8, "optimizer": {"init_lr": lr, "num_warm_steps": 5}, **settings},
            "dataset": {"path": "rows.jsonl", "train_test_split": 0.2},
            "model_save": {"path": "trained"},
        },
    )


@dataclass
class Listener:
    """Keeps reports; raises at the first of a phase, if asked to."""

    cancel_at: str | None = None
    reports: list[Report] = field(default_factory=list)

    def __call__(self, report: Report) -> None:
        self.reports.append(report)
        if report.phase == self.cancel_at:
            raise Cancelled


class Cancelled(Exception):
    pass


@pytest.fixture(scope="module")
def listener() -> Listener:
    return Listener()


@pytest.fixture(scope="module")
def classified(encoder: Path, table: Path, tmp_path_factory: pytest.TempPathFactory, listener: Listener) -> Outcome:
    out = tmp_path_factory.mktemp("out") / "bundle"
    return train(asking(), Sources(checkpoint=encoder, tokenizer=None, table=table), out, listener)


@pytest.mark.training
def test_a_separable_task_is_learnt_and_evaluated_on_rows_held_out(classified: Outcome) -> None:
    assert classified.evaluation["accuracy"] == 1.0
    assert classified.evaluation["macro_f1"] == 1.0
    assert np.sum(classified.evaluation["confusion"]["matrix"]) == classified.dataset["samples_test"]
    assert classified.history["loss"][-1] < classified.history["loss"][0] / 3
    assert len(classified.history["accuracy"]) == 5
    assert classified.bundle.labels == ("bird", "stone")


@pytest.mark.training
def test_the_outcome_counts_rows_and_tokens_and_is_json(classified: Outcome, encoder: Path, table: Path) -> None:
    dataset = classified.dataset
    assert dataset["dropped_empty"] == 1
    texts = {(row["text"], row["label"]) for row in map(json.loads, table.read_text().splitlines()) if row["text"].strip()}
    assert dataset["samples_train"] + dataset["samples_test"] == len(texts)
    assert dataset["dropped_duplicates"] == 121 - len(texts)
    tokenizer = open_checkpoint(encoder).tokenizer.backend_tokenizer
    assert 0 < dataset["tokens"] < sum(len(tokenizer.encode(text).ids) for text, _ in texts)
    for part in (classified.history, classified.evaluation, dataset, classified.provenance):
        json.dumps(part, allow_nan=False)
    assert classified.provenance["base"]["name"] == "tiny"
    assert classified.provenance["request"]["model_train"]["epochs"] == 5


@pytest.mark.training
def test_the_exported_bundle_serves_the_labels_that_were_learnt(classified: Outcome) -> None:
    model = engine.load(classified.bundle)
    found = classifier.classify(model, ["the granite town", "the old heron by the raven", "the wren"])
    assert [each.label for each in found] == ["stone", "bird", "bird"]
    assert classified.evaluation["parity"]["rows"] == classified.dataset["samples_test"]
    assert classified.evaluation["parity"]["max_abs_diff"] < classified.evaluation["parity"]["tolerance"]
    assert str(classified.bundle.folder.parent.parent) not in (classified.bundle.folder / "config.json").read_text()


@pytest.mark.training
def test_progress_goes_through_all_phases_and_never_back(classified: Outcome, listener: Listener) -> None:
    phases = list(dict.fromkeys(report.phase for report in listener.reports))
    assert phases == ["prepare", "train", "evaluate", "export", "parity"]
    percents = [report.percent for report in listener.reports]
    assert percents == sorted(percents)
    last = listener.reports[-1]
    assert (last.step, last.epoch, last.eta) == (last.steps, 5.0, 0.0)
    assert last.tokens_per_second is not None
    assert last.history["loss"] == classified.history["loss"]


@pytest.mark.training
def test_the_curve_has_20_to_50_points_and_the_rates_of_the_schedule(classified: Outcome) -> None:
    points = classified.history["steps"]
    assert 20 <= len(points) <= 50
    steps = points[-1]["step"]
    assert steps == classified.provenance["training"]["steps"]
    assert [point["learning_rate"] for point in points] == pytest.approx([3e-3 * rate_at(point["step"] - 1, steps, 5) for point in points])


@pytest.mark.training
def test_the_same_seed_gives_the_same_model_and_another_seed_another(encoder: Path, table: Path, tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> tuple[str, list[float]]:
        outcome = train(
            asking(epochs=1, seed=seed), Sources(checkpoint=encoder, tokenizer=None, table=table), tmp_path / name, lambda report: None
        )
        graph = onnx.load(outcome.bundle.graph)
        return str([tensor.raw_data for tensor in graph.graph.initializer]), outcome.history["loss"]

    first, again, other = weights("first", 4), weights("again", 4), weights("other", 5)
    assert first == again
    assert first[1] != other[1]


@pytest.mark.training
def test_a_run_leaves_the_generators_of_the_process_as_they_were(encoder: Path, table: Path, tmp_path: Path) -> None:
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    train(asking(epochs=1), Sources(checkpoint=encoder, tokenizer=None, table=table), tmp_path / "out", lambda report: None)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.training
@pytest.mark.parametrize("phase", ["prepare", "train", "evaluate", "export", "parity"])
def test_cancellation_passes_through_and_leaves_nothing_behind(phase: str, encoder: Path, table: Path, tmp_path: Path) -> None:
    listener = Listener(cancel_at=phase)
    with pytest.raises(Cancelled):
        train(asking(epochs=1), Sources(checkpoint=encoder, tokenizer=None, table=table), tmp_path / "out", listener)
    assert listener.reports[-1].phase == phase
    assert list(tmp_path.iterdir()) == []


@pytest.mark.training
def test_a_model_whose_graph_computes_something_else_is_refused_and_not_left_behind(
    encoder: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faithful = run.write_graph

    def unfaithful(model: Any, tokenizer: Any, objective: str, folder: Path, max_length: int) -> None:
        faithful(model, tokenizer, objective, folder, max_length)
        graph = onnx.load(folder / "model.onnx")
        bias = next(tensor for tensor in graph.graph.initializer if tensor.name == "classifier.bias")
        bias.raw_data = (np.frombuffer(bias.raw_data, np.float32) + np.float32(0.05)).tobytes()
        onnx.save(graph, folder / "model.onnx")

    monkeypatch.setattr(run, "write_graph", unfaithful)
    with pytest.raises(parity.ParityError, match="not published"):
        train(asking(epochs=1), Sources(checkpoint=encoder, tokenizer=None, table=table), tmp_path / "out", lambda report: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.training
def test_masked_language_modelling_lowers_the_loss_on_texts_held_out(language_model: Path, tmp_path: Path) -> None:
    draw = random.Random(1)
    table = tmp_path / "texts.jsonl"
    pairs = dict(zip(BIRDS, STONES, strict=True))
    texts = [" ".join(f"the {bird} is by the {pairs[bird]}" for bird in draw.choices(BIRDS, k=12)) for _ in range(80)]
    table.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    listener = Listener()
    sources = Sources(checkpoint=language_model, tokenizer=None, table=table)
    outcome = train(asking("masked-lm", epochs=6, max_length=24), sources, tmp_path / "out", listener)
    assert outcome.history["validation_loss"][-1] < outcome.history["validation_loss"][0] * 0.8
    assert outcome.evaluation["accuracy"] > 0.3
    assert outcome.evaluation["perplexity"] == pytest.approx(np.exp(outcome.evaluation["loss"]))
    assert outcome.dataset["chunks_train"] > 3 * outcome.dataset["samples_train"], "long texts are cut, not truncated"
    assert outcome.bundle.objective == "masked-lm"
    assert outcome.bundle.mask_token == "[MASK]"
    assert engine.load(outcome.bundle).outputs


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "model.path", "never loaded"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "model.path", "tokenizer.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "model.path", "architecture"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"PK not safetensors"), "model.path", "complete"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "model.path", "Save the tokenizer"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_refused_with_the_remedy(
    change: Callable[[Path], Any], field: str, words: str, encoder: Path, table: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(encoder, folder)
    change(folder)
    with pytest.raises(InvalidRequest) as caught:
        train(asking(), Sources(checkpoint=folder, tokenizer=None, table=table), tmp_path / "out", lambda report: None)
    assert caught.value.field == field
    assert words in str(caught.value.remedy)
    assert str(tmp_path) not in str(caught.value)


def test_weights_that_are_missing_below_the_head_are_refused(encoder: Path, table: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "partial"
    shutil.copytree(encoder, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidRequest, match=r"lacks 1 of the model's weights.*encoder.layer.1.output.dense.weight"):
        train(asking(), Sources(checkpoint=folder, tokenizer=None, table=table), tmp_path / "out", lambda report: None)


def test_pickled_weights_beside_a_checkpoint_are_never_opened(encoder: Path, table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(encoder, folder)
    (folder / "pytorch_model.bin").write_bytes((folder / "model.safetensors").read_bytes())
    (folder / "model.safetensors").unlink()
    with pytest.raises(InvalidRequest, match="not a checkpoint"):
        train(asking(), Sources(checkpoint=folder, tokenizer=None, table=table), tmp_path / "out", lambda report: None)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (asking("causal-lm"), "model.path"),
        (asking(max_length=41), "model_train.max_length"),
        (parse(TrainRequest, {**asking().model_dump(), "dataset": {"path": "rows.jsonl", "text_column": "txt"}}), "dataset"),
    ],
)
def test_a_request_that_cannot_work_names_its_field(request_: TrainRequest, field: str, encoder: Path, table: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as caught:
        train(request_, Sources(checkpoint=encoder, tokenizer=None, table=table), tmp_path / "out", lambda report: None)
    assert caught.value.field == field
    assert caught.value.remedy


def test_one_label_is_nothing_to_learn(encoder: Path, tmp_path: Path) -> None:
    table = tmp_path / "rows.jsonl"
    table.write_text("".join(json.dumps({"text": f"town {number}", "label": "bird"}) + "\n" for number in range(9)))
    with pytest.raises(InvalidRequest) as caught:
        train(asking(), Sources(checkpoint=encoder, tokenizer=None, table=table), tmp_path / "out", lambda report: None)
    assert caught.value.field == "dataset.label_column"


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_learning_rate() -> None:
    class Exploding:
        model = torch.nn.Linear(1, 2)
        fresh: frozenset[str] = frozenset()
        steps_per_epoch = 1

        def batches(self, epoch: int) -> Any:
            from mlaas.training.batches import Batch

            yield Batch(inputs={"x": torch.tensor([[float("inf")]])}, targets=torch.tensor([0]), tokens=1)

        def score(self, batch: Any) -> Scored:
            return Scored(self.model(batch.inputs["x"]), batch.targets)

        def tally(self) -> Tally:
            return Tally()

    with pytest.raises(InvalidRequest, match="no longer a number") as caught:
        fit(Exploding(), asking().model_train, Meter(report=lambda report: None), Compute(torch.device("cpu")))  # type: ignore[arg-type]
    assert caught.value.field == "model_train.optimizer.init_lr"


def test_memory_that_runs_out_is_said_to_be_the_batch_size(
    encoder: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*arguments: Any) -> Any:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(run, "fit", exhausted)
    with pytest.raises(InvalidRequest, match="does not fit into memory") as caught:
        train(asking(), Sources(checkpoint=encoder, tokenizer=None, table=table), tmp_path / "out", lambda report: None)
    assert caught.value.field == "model_train.batch_size"


def test_the_rate_warms_up_linearly_and_decays_linearly_to_nothing() -> None:
    factors = [rate_at(step, 10, 4) for step in range(11)]
    assert factors == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0.0])
    assert [rate_at(step, 4, 0) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]


def test_biases_and_layer_norms_do_not_decay_and_a_new_head_learns_faster() -> None:
    model = torch.nn.ModuleDict({"base": torch.nn.Linear(2, 2), "norm": torch.nn.LayerNorm(2), "head": torch.nn.Linear(2, 2)})
    settings = asking(lr=1e-4).model_train.optimizer
    made = optimizer(model, settings, {"head.weight", "head.bias"})
    found = {id(each): (group["lr"], group["weight_decay"]) for group in made.param_groups for each in group["params"]}
    names = {name: found[id(each)] for name, each in model.named_parameters()}
    assert names["base.weight"] == (1e-4, 0.01)
    assert names["base.bias"] == names["norm.weight"] == names["norm.bias"] == (1e-4, 0.0)
    assert names["head.weight"] == pytest.approx((1e-4 * HEAD_FACTOR, 0.01))


@pytest.mark.parametrize(("flags", "expected"), [("fpu avx2 amx_bf16", True), ("fpu avx512_bf16", True), ("fpu avx2 avx512f", False)])
def test_bf16_is_used_only_where_the_processor_computes_in_it(flags: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: {flags}\n")
    assert has_bf16(tmp_path / "cpuinfo") is expected
    assert has_bf16(tmp_path / "absent") is False


def test_an_encoder_is_exported_with_the_pooling_of_its_sentence_transformers_files(encoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sentences"
    shutil.copytree(encoder, folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Normalize"}]')
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 16}')
    bundle = export(folder, "no-objective", tmp_path / "out", provenance={"note": "mine"})
    assert (bundle.pooling, bundle.normalize, bundle.max_length) == ("cls", True, 16)
    assert bundle.provenance["note"] == "mine"
    assert bundle.provenance["parity"]["rows"] == 4


def test_a_checkpoint_without_the_objectives_head_is_not_exported(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no head for `text-classification`"):
        export(encoder, "text-classification", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_tied_weights_are_stored_once(language_model: Path, tmp_path: Path) -> None:
    bundle = export(language_model, "masked-lm", tmp_path / "out")
    vocabulary = bundle.config["vocab_size"]
    shapes = [tuple(tensor.dims) for tensor in onnx.load(bundle.graph).graph.initializer]
    assert [shape for shape in shapes if vocabulary in shape and len(shape) == 2] == [(vocabulary, 32)]


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, mlaas.training; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=dict(os.environ), check=False).returncode == 0
