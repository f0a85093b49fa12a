"""Every objective, trained on about 50 rows with a really tiny model until it knows them, exported, and served."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
import torch

from mlaas import answerer, engine, recognizer
from mlaas.contracts import TrainRequest, parse
from mlaas.errors import InvalidRequest
from mlaas.testing.tiny_checkpoints import BIRDS, STONES, write_checkpoint
from mlaas.training.answer_scores import exact_match, f1
from mlaas.training.run import Outcome, Sources, train

pytestmark = pytest.mark.training


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "encoder")


Train = Callable[..., Outcome]


@pytest.fixture
def trained(encoder: Path, tmp_path: Path) -> Train:
    """Trains for an objective on a table."""

    def run(
        objective: str,
        table: Path,
        *,
        checkpoint: Path | None = None,
        epochs: int = 12,
        lr: float = 3e-3,
        dataset: Any = None,
        **settings: Any,
    ) -> Outcome:
        request = parse(
            TrainRequest,
            {
                "model": {"path": "tiny", "objective": objective},
                "model_train": {"epochs": epochs, "batch_size": 8, "optimizer": {"init_lr": lr, "num_warm_steps": 5}, **settings},
                "dataset": {"path": table.name, "train_test_split": 0.1, **(dataset or {})},
                "model_save": {"path": "trained"},
            },
        )
        outcome = train(
            request, Sources(checkpoint=checkpoint or encoder, tokenizer=None, table=table), tmp_path / "out", lambda report: None
        )
        json.dumps([outcome.history, outcome.evaluation, outcome.dataset, outcome.provenance], allow_nan=False)
        return outcome

    return run


def jsonl(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


def tagged_sentences(count: int = 50) -> list[tuple[list[str], list[str]]]:
    """Birds are entities of one word or, after "old", of two; stones of one."""
    draw = random.Random(3)
    made = []
    for _ in range(count):
        words, tags = ["the"], ["O"]
        for _ in range(draw.randint(1, 3)):
            if draw.random() < 0.5:
                words += ["old", draw.choice(BIRDS)]
                tags += ["B-BIRD", "I-BIRD"]
            else:
                words += [draw.choice(("near", "by")), draw.choice(STONES)]
                tags += ["O", "B-STONE"]
        made.append((words, tags))
    return made


def test_named_entities_of_rows_are_learnt_and_found_in_texts_at_their_places(trained: Train, tmp_path: Path) -> None:
    table = jsonl(tmp_path / "rows.jsonl", [{"tokens": words, "tags": tags} for words, tags in tagged_sentences()])
    outcome = trained("token-classification", table)
    assert outcome.evaluation["f1"] > 0.99
    assert {label: one["f1"] for label, one in outcome.evaluation["per_type"].items()} == {"BIRD": 1.0, "STONE": 1.0}
    assert outcome.bundle.labels == ("O", "B-BIRD", "I-BIRD", "B-STONE", "I-STONE")
    model = engine.load(outcome.bundle)
    text = "The town  by granite the Old Heron"
    found = recognizer.recognize(model, [text])[0].entities
    assert [(one.label, one.text, text[one.start : one.end]) for one in found] == [
        ("STONE", "granite", "granite"),
        ("BIRD", "Old Heron", "Old Heron"),
    ]
    assert all(0.5 < one.score <= 1.0 for one in found)
    assert recognizer.recognize(model, [text], score_threshold=1.0)[0].entities == []


def test_a_conll_file_in_iob1_is_learnt_and_entities_of_long_texts_are_found_in_all_windows(trained: Train, tmp_path: Path) -> None:
    table = tmp_path / "train.txt"
    lines = ["-DOCSTART- NN O O\n\n"]
    for words, tags in tagged_sentences():
        before = ["O", *tags]  # IOB1 writes B- only where an entity touches another of its type
        iob1 = [tag if tag[1:] == left[1:] else tag.replace("B-", "I-") for tag, left in zip(tags, before, strict=False)]
        lines += [f"{word} NN O {tag}\n" for word, tag in zip(words, iob1, strict=True)] + ["\n"]
    table.write_text("".join(lines))
    outcome = trained("token-classification", table)
    assert outcome.evaluation["f1"] > 0.99
    model = engine.load(outcome.bundle)
    sentences = [" ".join(words) for words, _ in tagged_sentences(30)]
    whole = " ".join(sentences)  # several times what the model reads at once
    apart = [one.text for each in recognizer.recognize(model, sentences) for one in each.entities]
    assert [one.text for one in recognizer.recognize(model, [whole])[0].entities] == apart
    assert len(apart) > 40


@pytest.mark.parametrize(
    ("rows", "field", "said"),
    [
        ([{"tokens": ["a", "b"], "tags": ["O"]}] * 2, "dataset.tags_column", "2 words and 1 tags"),
        ([{"tokens": ["a"], "tags": [1]}, {"tokens": ["b"], "tags": [0]}], "dataset.tags_column", "numbers as tags"),
        ([{"tokens": ["a"], "tags": ["O"]}, {"tokens": ["b"], "tags": ["O"]}], "dataset.path", "no entities"),
        ([{"words": ["a"], "tags": ["O"]}], "dataset", "no column `tokens`"),
    ],
)
def test_sentences_that_cannot_be_learnt_from_are_refused(
    rows: list[dict[str, Any]], field: str, said: str, trained: Train, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        trained("token-classification", jsonl(tmp_path / "rows.jsonl", rows))
    assert caught.value.field == field
    assert caught.value.remedy


def asked(count: int = 50, *, unanswerable: bool = False) -> list[dict[str, Any]]:
    """ "is" asks for the bird of a text and "near" for its stone; a text may have none."""
    draw = random.Random(4)
    rows = []
    for number in range(count):
        bird, stone = draw.choice(BIRDS), draw.choice(STONES)
        words = [*draw.choices(("the", "by", "town"), k=draw.randint(1, 5)), f"the old {bird}", "and", f"{stone}s"]
        if draw.random() < 0.5:
            words.reverse()
        if unanswerable and number % 5 == 0:
            words.remove(f"{stone}s")
        context = " ".join(words)
        for question, answer in (("is", f"old {bird}"), ("near", f"{stone}s")):
            start = context.find(answer)
            rows.append(
                {"question": question, "context": context, "answers": [{"text": answer, "answer_start": start}] if start >= 0 else []}
            )
    return rows


def squad(file: Path, rows: list[dict[str, Any]]) -> Path:
    paragraphs = [{"context": row["context"], "qas": [{"id": "1", "question": row["question"], "answers": row["answers"]}]} for row in rows]
    file.write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}), "utf-8")
    return file


def exact(model: engine.Model, rows: list[dict[str, Any]]) -> float:
    found = answerer.answer(model, [row["question"] for row in rows], [row["context"] for row in rows])
    expected = [row["answers"][0]["text"] if row["answers"] else None for row in rows]
    return sum(one.answer == answer for one, answer in zip(found, expected, strict=True)) / len(rows)


def test_answers_are_learnt_from_squads_json_and_found_in_texts_of_any_length(trained: Train, tmp_path: Path) -> None:
    rows = asked()
    outcome = trained("question-answering", squad(tmp_path / "train.json", rows), epochs=30, lr=1e-3)
    assert outcome.evaluation["exact_match"] > 0.95
    assert outcome.evaluation["f1"] >= outcome.evaluation["exact_match"]
    model = engine.load(outcome.bundle)
    assert exact(model, rows) > 0.95
    long = "by the town " * 30 + "the Old Heron and basalts" + " town by the" * 30
    found = answerer.answer(model, ["is", "near"], [long])
    assert [(one.answer, long[one.start : one.end]) for one in found] == [("Old Heron", "Old Heron"), ("basalts", "basalts")]
    assert all(0.0 < one.score <= 1.0 for one in found)


def test_questions_of_rows_may_have_no_answer(trained: Train, tmp_path: Path) -> None:
    rows = asked(unanswerable=True)
    as_hugging_face = [
        {
            **row,
            "answers": {"text": [one["text"] for one in row["answers"]], "answer_start": [one["answer_start"] for one in row["answers"]]},
        }
        for row in rows
    ]
    outcome = trained("question-answering", jsonl(tmp_path / "rows.jsonl", as_hugging_face), epochs=30, lr=1e-3)
    assert outcome.dataset["unanswerable"] > 5
    assert exact(engine.load(outcome.bundle), rows) > 0.95
    assert outcome.bundle.config["no_answer"] is True


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        ("{}", "a.json", "not a JSON file as SQuAD has it"),
        ('{"data": [{"paragraphs": 3}]}', "a.json", "not a JSON file as SQuAD has it"),
        ('{"question": "is", "context": "the", "answers": "old"}\n', "a.jsonl", "row 1: the answers cannot be read"),
        ('{"question": "is", "context": "the", "answers": [{"text": "old", "answer_start": 0}]}\n', "a.jsonl", "not in their texts"),
    ],
)
def test_questions_that_cannot_be_learnt_from_are_refused(content: str, name: str, said: str, trained: Train, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidRequest, match=said) as caught:
        trained("question-answering", tmp_path / name)
    assert caught.value.remedy


def test_answers_are_compared_as_squad_compares_them() -> None:
    assert exact_match("The Higgs, boson!", ["higgs boson"]) == 1.0
    assert exact_match("boson", ["higgs boson", "quark"]) == 0.0
    assert f1("the heavy Higgs boson", ["higgs boson", "quark"]) == pytest.approx(0.8)
    assert (exact_match("", []), f1("", []), f1("quark", [])) == (1.0, 1.0, 0.0)
