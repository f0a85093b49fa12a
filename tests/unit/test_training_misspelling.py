"""Typing errors in training rows, and what a model makes of misspelt held-out rows."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("typo")
import onnx
import torch

from mlaas.contracts import TrainRequest, Typos, parse
from mlaas.errors import InvalidRequest
from mlaas.testing.tiny_checkpoints import BIRDS, STONES, sentence, write_checkpoint, write_rows
from mlaas.training import pipelines
from mlaas.training.misspelling import COPIES, Misspeller, copies, misspelt
from mlaas.training.rows import Row, normalised
from mlaas.training.run import Outcome, Sources, train
from mlaas.training.supported import check_data

TEXTS = [sentence(random.Random(number), (BIRDS, STONES)[number % 2]) for number in range(40)]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def asking(objective: str = "text-classification", model: dict[str, Any] | None = None, **dataset: Any) -> TrainRequest:
    return parse(
        TrainRequest,
        {
            "model": {"objective": objective, **(model or {"path": "tiny"})},
            "dataset": {"path": "rows.jsonl", "train_test_split": 0.2, **dataset},
            "model_save": {"path": "trained"},
            **({} if model else {"model_train": {"epochs": 3, "batch_size": 8, "optimizer": {"init_lr": 3e-3}}}),
        },
    )


def letters(texts: Any) -> list[list[int]]:
    return [list(map(ord, text)) for text in texts]


def misspeller(seed: int = 0, **typos: Any) -> Misspeller:
    return Misspeller(typos=Typos(**typos), seed=seed, rows=[Row(text) for text in TEXTS], ids=letters(TEXTS), encode=letters)


def epoch(one: Misspeller, number: int, rows: tuple[int, ...] = tuple(range(40))) -> list[str]:
    return ["".join(map(chr, ids)) for batch in one.batches(number, [rows[:9], rows[9:]]) for ids in batch]


def test_every_epoch_has_errors_of_its_own_and_the_same_whenever_it_is_asked_for() -> None:
    one = misspeller(probability=0.5)
    assert epoch(one, 0) == epoch(misspeller(probability=0.5), 0)
    assert epoch(one, 1) == epoch(misspeller(probability=0.5), 1), "an epoch does not depend on those before it"
    assert epoch(one, 0) != epoch(one, 1)
    assert epoch(one, 0) != epoch(misspeller(seed=1, probability=0.5), 0)
    assert len([text for text, clean in zip(epoch(one, 0), TEXTS, strict=True) if text != clean]) > 20


def test_a_row_that_comes_twice_in_an_epoch_is_misspelt_in_two_ways() -> None:
    longest = max(range(40), key=lambda row: len(TEXTS[row]))
    found = epoch(misspeller(probability=1.0), 0, (longest,) * 20)
    assert len(set(found)) > 15


def test_per_text_says_how_many_texts_are_touched_at_all() -> None:
    def touched(share: float) -> int:
        one = misspeller(probability=1.0, per_text=share)
        return sum(text != TEXTS[row] for number in range(5) for row, text in enumerate(epoch(one, number)))

    assert touched(1.0) > 190
    assert 70 < touched(0.5) < 130


def test_a_misspelt_held_out_row_has_a_slip_that_a_lower_casing_model_sees_and_is_the_same_in_any_order() -> None:
    rows = [Row(text, "x") for text in TEXTS]
    wrong = misspelt(rows, asking(misspelt_rate=0.05))
    assert all(normalised(row.text) != normalised(other.text) for row, other in zip(rows, wrong, strict=True))
    assert misspelt(rows[::-1], asking(misspelt_rate=0.05))[::-1] == wrong


def test_figures_and_acronyms_stay_and_without_the_setting_nothing_is_misspelt() -> None:
    rows = [Row("INFN 00044", "LNF"), Row("Laboratori", "LNF")]
    assert misspelt(rows, asking(misspelt_rate=1.0))[0] == rows[0]
    assert misspelt(rows, asking()) == copies(rows, asking()) == []


def test_copies_keep_their_labels_and_are_not_alike() -> None:
    rows = [Row(text, str(number)) for number, text in enumerate(TEXTS)]
    made = copies(rows, asking(augment={"typos": {"probability": 1.0}}))
    assert [row.label for row in made] == [row.label for row in rows] * COPIES
    assert len({row.text for row in made if row.label == "3"}) == COPIES


@pytest.mark.parametrize("asked", [{"augment": {}}, {"misspelt_rate": 0.2}])
def test_other_objectives_refuse_typing_errors_by_the_name_of_the_field(asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_data(asking("masked-lm", **asked))
    assert caught.value.field == f"dataset.{next(iter(asked))}"
    check_data(asking("masked-lm"))
    check_data(asking(**asked))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    folder = tmp_path_factory.mktemp("sources")
    return Sources(checkpoint=write_checkpoint(folder / "encoder"), tokenizer=None, table=write_rows(folder / "rows.jsonl"))


@pytest.fixture
def run(sources: Sources, tmp_path: Path) -> Callable[..., Outcome]:
    def run(name: str, **dataset: Any) -> Outcome:
        return train(asking(**dataset), sources, tmp_path / name, lambda report: None)

    return run


def weights(outcome: Outcome) -> dict[str, bytes]:
    return {tensor.name: tensor.raw_data for tensor in onnx.load(outcome.bundle.graph).graph.initializer}


@pytest.mark.training
def test_a_run_is_evaluated_on_misspelt_rows_and_is_the_same_run_for_it(run: Callable[..., Outcome]) -> None:
    plain, looked_at = run("plain"), run("looked-at", misspelt_rate=1.0)
    assert weights(plain) == weights(looked_at)
    assert "misspelt" not in plain.evaluation
    wrong = looked_at.evaluation["misspelt"]
    assert wrong["probability"] == 1.0
    assert wrong["rows_changed"] == looked_at.dataset["samples_test"]
    assert wrong["accuracy"] < looked_at.evaluation["accuracy"], "of every word that says something a letter is wrong"
    assert set(wrong["per_class"]) == {"bird", "stone"}
    assert "confusion" not in wrong


@pytest.mark.training
def test_augmented_runs_train_on_other_rows_repeatably_and_hold_the_same_ones_out(run: Callable[..., Outcome]) -> None:
    asked = {"augment": {"typos": {"probability": 0.3}}}
    plain, first, second = run("plain"), run("first", **asked), run("second", **asked)
    assert weights(first) == weights(second) != weights(plain)
    assert first.evaluation["misspelt"]["probability"] == 0.3, "what is trained for is looked at"
    assert first.dataset["samples_test"] == plain.dataset["samples_test"]
    assert first.dataset["tokens"] == plain.dataset["tokens"], "the rows themselves are what they were"
    assert first.dataset["tokens_trained"] != plain.dataset["tokens_trained"]


@pytest.mark.training
def test_a_model_of_ngrams_is_trained_on_copies_and_evaluated_on_the_same_misspelt_rows(sources: Sources, tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx")
    asked = [
        asking(model={"architecture": "tfidf-linear"}, **more) for more in ({"misspelt_rate": 1.0}, {"augment": {}, "misspelt_rate": 1.0})
    ]
    plain, augmented = (
        pipelines.train(each, sources.table, tmp_path / str(number), lambda report: None) for number, each in enumerate(asked)
    )
    assert plain.dataset["samples_train"] == augmented.dataset["samples_train"]
    assert augmented.dataset["tokens"] > COPIES * plain.dataset["tokens"]
    assert augmented.evaluation["misspelt"]["rows_changed"] == plain.evaluation["misspelt"]["rows_changed"] > 0
    assert augmented.evaluation["misspelt"]["loss"] < plain.evaluation["misspelt"]["loss"]
