"""From a configuration to a served model, for each architecture; and Longformer's graph at every length."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    LongformerConfig,
    LongformerForMaskedLM,
    LongformerForSequenceClassification,
    LongformerModel,
    RobertaConfig,
)

from mlaas import classifier, embedder, engine, mask_filler
from mlaas.contracts import TrainRequest, parse
from mlaas.errors import InvalidRequest
from mlaas.testing.tiny_checkpoints import BIRDS, STONES, write_rows
from mlaas.training import longformer
from mlaas.training.batches import Batch
from mlaas.training.export import export, write_graph
from mlaas.training.parity import compare, sample
from mlaas.training.quiet import quiet
from mlaas.training.run import Outcome, Sources, train
from mlaas.training.vocabulary import kind_of, train_tokenizer

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "hidden_dropout_prob": 0.0}
LONG = {"attention_window": [16, 8], "max_position_embeddings": 4098, "type_vocab_size": 1, "pad_token_id": 1}
CONFIGS: dict[str, Callable[[], Any]] = {
    "bert": lambda: BertConfig(**SIZES, max_position_embeddings=64),
    "distilbert": lambda: DistilBertConfig(dim=32, n_layers=2, n_heads=2, hidden_dim=64, dropout=0.0, max_position_embeddings=64),
    "roberta": lambda: RobertaConfig(**SIZES, max_position_embeddings=66, type_vocab_size=1),
    "longformer": lambda: LongformerConfig(**SIZES, **LONG),
}
PAIRS = dict(zip(BIRDS, STONES, strict=True))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each bird stands by its own stone, so that there is something to learn."""
    draw, file = random.Random(1), tmp_path_factory.mktemp("texts") / "rows.jsonl"
    lines = [" ".join(f"the {bird} is by the {PAIRS[bird]}" for bird in draw.choices(BIRDS, k=4)) for _ in range(120)]
    file.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return file


def nothing() -> None: ...


def scratch(**changes: Any) -> dict[str, Any]:
    return {
        "model": {"path": "config", "objective": "masked-lm"},
        "tokenizer": {"train": {"vocab_size": 400}},
        "model_train": {"from_scratch": True, "epochs": 6, "batch_size": 8, "max_length": 40, "optimizer": {"init_lr": 1e-2}},
        "dataset": {"path": "rows.jsonl", "train_test_split": 0.1},
        "model_save": {"path": "trained"},
    } | changes


@pytest.mark.training
@pytest.mark.parametrize("architecture", CONFIGS)
def test_a_configuration_becomes_a_language_model_that_fills_masks(architecture: str, texts: Path, tmp_path: Path) -> None:
    CONFIGS[architecture]().save_pretrained(tmp_path / "config")
    sources = Sources(checkpoint=tmp_path / "config", tokenizer=None, table=texts)
    outcome: Outcome = train(parse(TrainRequest, scratch()), sources, tmp_path / "bundle", lambda report: None)
    assert outcome.history["validation_loss"][-1] < outcome.history["validation_loss"][0] * 0.8
    assert outcome.evaluation["parity"]["max_abs_diff"] <= outcome.evaluation["parity"]["tolerance"]
    assert outcome.bundle.config["vocab_size"] <= 400
    found = mask_filler.fill_masks(engine.load(outcome.bundle), ["the heron is [MASK] the granite", "the [MASK]"])
    assert found[0].filled == "the heron is by the granite"
    assert len(found[1].masks[0]) == 5


@pytest.mark.training
@pytest.mark.parametrize("architecture", CONFIGS)
def test_a_checkpoint_becomes_a_classifier_that_is_served(architecture: str, texts: Path, tmp_path: Path) -> None:
    config = CONFIGS[architecture]()
    (tmp_path / "base").mkdir()
    train_tokenizer(
        [json.loads(line)["text"] for line in texts.read_text().splitlines()], config.model_type, 400, tmp_path / "base", nothing
    )
    config.vocab_size, config.initializer_range = 400, 0.2  # random weights that are not all alike learn in seconds
    torch.manual_seed(2)
    AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path / "base")
    request = {
        "model": {"path": "base", "objective": "text-classification"},
        "model_train": {"epochs": 8, "batch_size": 8, "max_length": 40, "optimizer": {"init_lr": 2e-3, "num_warm_steps": 10}},
        "dataset": {"path": "rows.jsonl", "train_test_split": 0.2},
        "model_save": {"path": "trained"},
    }
    sources = Sources(checkpoint=tmp_path / "base", tokenizer=None, table=write_rows(tmp_path / "rows.jsonl"))
    outcome = train(parse(TrainRequest, request), sources, tmp_path / "bundle", lambda report: None)
    assert outcome.evaluation["accuracy"] > 0.9
    found = classifier.classify(engine.load(outcome.bundle), ["the granite town", "the old heron by the raven"])
    assert [each.label for each in found] == ["stone", "bird"]


@pytest.mark.training
@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_a_tokenizer_trained_again_on_the_same_texts_is_the_same(architecture: str, texts: Path, tmp_path: Path) -> None:
    lines = [json.loads(line)["text"] for line in texts.read_text().splitlines()]
    written = []
    for name in ("first", "again", "once more"):
        (tmp_path / name).mkdir()
        train_tokenizer(lines, architecture, 350, tmp_path / name, nothing)
        written.append((tmp_path / name / "tokenizer.json").read_bytes())
    assert written[0] == written[1] == written[2]


def test_the_kind_of_tokenizer_is_that_of_the_architecture() -> None:
    assert {kind_of(name) for name in ("roberta", "longformer")} == {"byte-level-bpe"}
    assert {kind_of(name) for name in ("bert", "distilbert", "electra")} == {"wordpiece"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": {"path": "c", "objective": "text-classification"}}, "model_train.from_scratch"),
        ({"model_train": {"epochs": 1}}, "tokenizer.train"),
        ({"model_train": {"epochs": 1}, "tokenizer": None}, "model.path"),
        ({"tokenizer": None}, "model.path"),  # a configuration without a tokenizer, and none is to be trained
    ],
)
def test_what_cannot_be_begun_from_scratch_is_refused(change: dict[str, Any], field: str, texts: Path, tmp_path: Path) -> None:
    CONFIGS["bert"]().save_pretrained(tmp_path / "config")
    sources = Sources(checkpoint=tmp_path / "config", tokenizer=None, table=texts)
    with pytest.raises(InvalidRequest) as caught:
        train(parse(TrainRequest, scratch(**change)), sources, tmp_path / "bundle", lambda report: None)
    assert caught.value.field == field
    assert caught.value.remedy


def test_a_configuration_that_makes_no_model_is_refused(texts: Path, tmp_path: Path) -> None:
    BertConfig(**SIZES | {"num_attention_heads": 5}).save_pretrained(tmp_path / "config")
    sources = Sources(checkpoint=tmp_path / "config", tokenizer=None, table=texts)
    with pytest.raises(InvalidRequest, match=r"config\.json") as caught:
        train(parse(TrainRequest, scratch()), sources, tmp_path / "bundle", lambda report: None)
    assert caught.value.field == "model.path"


def test_a_tokenizer_request_names_a_path_or_trains_one() -> None:
    for tokenizer in ({}, {"path": "t", "train": {"vocab_size": 300}}):
        with pytest.raises(InvalidRequest, match="`path`"):
            parse(TrainRequest, scratch(tokenizer=tokenizer))


def long_model(kind: Any) -> Any:
    torch.manual_seed(0)
    return kind(
        LongformerConfig(**SIZES, **LONG | {"attention_window": [512, 64]}, vocab_size=300, initializer_range=0.3, num_labels=3)
    ).eval()


def padded(rows: int, length: int) -> Batch:
    draw = torch.Generator().manual_seed(length)
    ids = torch.randint(3, 300, (rows, length), generator=draw)
    mask = torch.ones_like(ids)
    ids[0, length * 2 // 3 :], mask[0, length * 2 // 3 :] = 1, 0
    return Batch(inputs={"input_ids": ids, "attention_mask": mask}, targets=torch.zeros(rows), tokens=int(mask.sum()))


class NoTokenizer:
    model_max_length = 0

    def save_pretrained(self, folder: Path, **options: Any) -> None: ...


@pytest.mark.training
@pytest.mark.parametrize(
    ("kind", "objective"),
    [(LongformerForMaskedLM, "masked-lm"), (LongformerForSequenceClassification, "text-classification"), (LongformerModel, "no-objective")],
)
def test_the_graph_of_a_longformer_computes_what_transformers_does_at_every_length(kind: Any, objective: str, tmp_path: Path) -> None:
    model = long_model(kind)
    with quiet():
        write_graph(model, NoTokenizer(), objective, tmp_path, 4096)
    for rows, length in ((3, 7), (2, 130), (2, 512), (2, 2048), (1, 4096)):
        figures = compare(model, tmp_path / "model.onnx", sample([padded(rows, length)]))
        assert figures["max_abs_diff"] < 1e-4, length


def test_a_longformer_is_as_it_was_after_an_export() -> None:
    model = long_model(LongformerModel)
    inputs = padded(2, 40).inputs
    with torch.inference_mode():
        before = model(**inputs)[0]
        with longformer.exportable(model):
            assert torch.allclose(model(**inputs)[0][1], before[1], atol=1e-4)
            assert all("forward" in module.__dict__ for module in model.modules() if type(module).__name__ == "LongformerSelfAttention")
        assert torch.equal(model(**inputs)[0], before)
    assert not any("forward" in module.__dict__ for module in model.modules())


@pytest.mark.training
def test_a_longformer_is_served_as_an_embedder_and_reads_far_beyond_512_tokens(texts: Path, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    train_tokenizer([json.loads(line)["text"] for line in texts.read_text().splitlines()], "longformer", 300, tmp_path / "base", nothing)
    long_model(LongformerModel).save_pretrained(tmp_path / "base")
    model = engine.load(export(tmp_path / "base", "no-objective", tmp_path / "bundle"))
    assert model.bundle.max_length == 4096
    text = "the heron is by the granite " * 400
    vectors, truncated = embedder.embed(model, [text, text + "the raven", text * 3])
    assert list(truncated) == [False, False, True]
    assert not np.allclose(vectors[0], vectors[1], atol=1e-6), "the end of a long text counts"


@pytest.mark.training
def test_a_long_text_is_classified_by_a_longformer(texts: Path, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    train_tokenizer([json.loads(line)["text"] for line in texts.read_text().splitlines()], "longformer", 300, tmp_path / "base", nothing)
    long_model(LongformerForSequenceClassification).save_pretrained(tmp_path / "base")
    model = engine.load(export(tmp_path / "base", "text-classification", tmp_path / "bundle"))
    (found,) = classifier.classify(model, ["the heron is by the granite " * 400], top_k=3)
    assert not found.truncated
    assert sum(score.score for score in found.scores) == pytest.approx(1.0)
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "base").config.num_labels == 3
