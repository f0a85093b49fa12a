"""Every objective, trained on about 50 rows with a really tiny model until it knows them, exported, and served."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mlaas import answerer, classifier, embedder, engine, generator, recognizer, tokens
from mlaas.contracts import TrainRequest, parse
from mlaas.entities import spans
from mlaas.errors import InvalidRequest
from mlaas.predictions import GenerateSettings
from mlaas.testing.tiny_checkpoints import BIRDS, STONES, write_checkpoint, write_tokenizer
from mlaas.training.answer_scores import exact_match, f1
from mlaas.training.next_sentence import sentences
from mlaas.training.pairs import Pair, split_pairs
from mlaas.training.retrieval_scores import retrieval_figures
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


def test_fifty_tagged_rows_are_learnt_by_heart(trained: Train, tmp_path: Path) -> None:
    rows = tagged_sentences(50)
    table = jsonl(tmp_path / "rows.jsonl", [{"tokens": words, "tags": tags} for words, tags in rows])
    model = engine.load(trained("token-classification", table).bundle)
    found = recognizer.recognize(model, [" ".join(words) for words, _ in rows])
    right = [
        [(one.label, one.text) for one in recognized.entities]
        == [(span.label, " ".join(words[span.start : span.end])) for span in spans(tags)]
        for recognized, (words, tags) in zip(found, rows, strict=True)
    ]
    assert sum(right) / len(right) >= 0.98


def test_fifty_questions_are_learnt_by_heart(trained: Train, tmp_path: Path) -> None:
    rows = asked(25)
    assert len(rows) == 50
    outcome = trained("question-answering", jsonl(tmp_path / "rows.jsonl", rows), epochs=50, lr=1e-3)
    assert exact(engine.load(outcome.bundle), rows) >= 0.98


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


def titles(count: int = 50) -> list[dict[str, Any]]:
    """A title names a bird, its abstract a stone: which one goes with which has to be learnt."""
    draw = random.Random(5)
    stones = dict(zip(BIRDS, STONES, strict=True))
    rows = []
    for _ in range(count):
        first, second = draw.sample(BIRDS, 2)
        filling = draw.choices(("the", "old", "near", "town", "by"), k=draw.randint(3, 9))
        rows.append({"title": f"the {first} and {second}", "abstract": " ".join([stones[first], *filling, stones[second]])})
    return rows


def test_embeddings_learn_which_texts_belong_together_and_index_and_search_use_the_model(trained: Train, tmp_path: Path) -> None:
    rows = titles()
    columns = {"text_column": "title", "pair_column": "abstract", "train_test_split": 0.2}
    outcome = trained("sentence-embedding", jsonl(tmp_path / "rows.jsonl", rows), epochs=30, lr=1e-3, dataset=columns)
    assert outcome.evaluation["recall_at_5"] > 0.9
    assert outcome.evaluation["mrr"] > 0.6
    bundle = outcome.bundle
    assert (bundle.objective, bundle.pooling, bundle.normalize) == ("no-objective", "mean", True)
    model = engine.load(bundle)
    queries, _ = embedder.embed(model, [row["title"] for row in rows])
    documents, _ = embedder.embed(model, [row["abstract"] for row in rows])
    assert np.allclose(np.linalg.norm(queries, axis=1), 1.0, atol=1e-5)
    assert retrieval_figures(queries, documents, range(len(rows)))["recall_at_5"] > 0.9


def test_pairs_without_their_second_column_are_refused(trained: Train, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as caught:
        trained("sentence-embedding", jsonl(tmp_path / "rows.jsonl", titles(4)))
    assert caught.value.field == "dataset.pair_column"


def test_recall_and_mrr_count_each_document_once_and_ties_against_the_search() -> None:
    queries = np.array([[1, 0], [0, 1], [1, 0]], dtype=np.float32)
    documents = np.array([[1, 0], [0, 1], [1, 0]], dtype=np.float32)
    assert retrieval_figures(queries, documents, [7, 8, 7]) == {
        "recall_at_1": 1.0, "recall_at_5": 1.0, "recall_at_10": 1.0, "mrr": 1.0, "documents": 2,
    }  # fmt: skip
    assert retrieval_figures(queries, np.ones((3, 2), np.float32), [1, 2, 3])["mrr"] == pytest.approx(1 / 3)


def test_pairs_that_share_a_text_stay_on_one_side() -> None:
    pairs = [Pair(f"a{number // 3}", f"b{number}") for number in range(30)] + [Pair("a0", "b29")]
    train_, test = split_pairs(pairs, 0.3, 0)
    assert sorted([*train_, *test]) == list(range(31))
    for side in (0, 1):
        texts = [{(pair.first, pair.second)[side] for pair in (pairs[index] for index in indices)} for indices in (train_, test)]
        assert not texts[0] & texts[1]
    assert test


CHAIN = dict(zip(BIRDS, (*BIRDS[1:], BIRDS[0]), strict=True))


def chains(count: int) -> list[str]:
    draw = random.Random(6)
    texts = []
    for _ in range(count):
        words = [draw.choice(BIRDS)]
        for _ in range(draw.randint(3, 8)):
            words.append(CHAIN[words[-1]])
        texts.append(" ".join([*words, "town"]))
    return texts


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 with 2 layers of 32 and the tokenizer of the tiny encoder."""
    folder = tmp_path_factory.mktemp("checkpoints") / "decoder"
    folder.mkdir()
    size = write_tokenizer(folder)
    torch.manual_seed(1)
    config = GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=2, n_positions=40, bos_token_id=2, eos_token_id=3)
    GPT2LMHeadModel(config).save_pretrained(folder, safe_serialization=True)
    return folder


def test_a_causal_language_model_learns_what_follows_and_continues_texts(trained: Train, decoder: Path, tmp_path: Path) -> None:
    table = jsonl(tmp_path / "rows.jsonl", [{"text": text} for text in chains(60)])
    outcome = trained("causal-lm", table, checkpoint=decoder, epochs=20, lr=3e-3)
    assert outcome.evaluation["perplexity"] == pytest.approx(np.exp(outcome.evaluation["loss"]))
    assert outcome.evaluation["perplexity"] < 2.5  # when a chain ends and with which bird it begins is chance
    model = engine.load(outcome.bundle)
    assert len(model.past) == 4, "keys and values of two layers"
    settings = GenerateSettings(max_new_tokens=5)
    for bird in BIRDS:
        written = generator.generate(model, [f"{bird} {CHAIN[bird]}"], settings)[0]
        words = written.text.split()
        assert words[0] in (CHAIN[CHAIN[bird]], "town")
        assert all(right in (CHAIN.get(left), "town") for left, right in pairwise(words))
    ended = generator.generate(model, ["robin heron town"], settings)[0]
    assert (ended.text, ended.tokens, ended.finish) == ("", 0, "end")


def test_generation_with_a_memory_writes_what_it_writes_without_and_alone_what_it_writes_in_a_batch(
    trained: Train, decoder: Path, tmp_path: Path
) -> None:
    table = jsonl(tmp_path / "rows.jsonl", [{"text": text} for text in chains(20)])
    bundle = trained("causal-lm", table, checkpoint=decoder, epochs=2).bundle
    model = engine.load(bundle)
    texts = ["robin heron", "wren", "old town by", "basalt near"]
    settings = GenerateSettings(max_new_tokens=12, top_k=5, temperature=1.3, seed=7)
    together = generator.generate(model, texts, settings)
    assert together == generator.generate(model, texts, settings)
    assert together[0] == generator.generate(model, texts[:1], settings)[0]
    assert together != generator.generate(model, texts, GenerateSettings(max_new_tokens=12, top_k=5, temperature=1.3, seed=8))
    loaded = GPT2LMHeadModel.from_pretrained(decoder)  # not the trained weights: only the shapes count
    assert loaded.config.n_layer * 2 == len(model.past)
    greedy = generator.generate(model, texts, GenerateSettings(max_new_tokens=12))
    assert [plain(model, text, 12) for text in texts] == [one.text.split() for one in greedy]


def plain(model: engine.Model, text: str, count: int) -> list[str]:
    """Greedy decoding that reads everything anew for each token."""
    ids = model.tokenizer.encode(text).ids[:-1]
    new: list[int] = []
    for _ in range(count):
        one = tokens.Encoded(ids=ids + new, type_ids=[0] * len(ids + new), offsets=[], truncated=False)
        ((_, logits, _),) = model.run([one], output="logits")
        logits[0, -1, [0, 1, 2, 4]] = -np.inf  # special tokens that end nothing
        new.append(int(logits[0, -1].argmax()))
        if new[-1] == 3:
            return [model.tokenizer.id_to_token(each) for each in new[:-1]]
    return [model.tokenizer.id_to_token(each) for each in new]


def test_an_encoder_is_refused_for_generation_before_it_is_trained(trained: Train, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="type bert") as caught:
        trained("causal-lm", jsonl(tmp_path / "rows.jsonl", [{"text": text} for text in chains(9)]))
    assert "GPT-2" in str(caught.value.remedy)


def following(count: int = 60) -> list[str]:
    """Texts of two sentences: the stone of the second goes with the bird of the first."""
    draw = random.Random(8)
    stones = dict(zip(BIRDS, STONES, strict=True))
    return [f"The {bird} is old {draw.choice(('town', 'by'))}. The {stones[bird]} is near." for bird in draw.choices(BIRDS, k=count)]


def test_next_sentences_are_learnt_from_texts_and_told_by_classify(trained: Train, tmp_path: Path) -> None:
    draw = random.Random(9)
    table = jsonl(
        tmp_path / "rows.jsonl", [{"text": f"{text} Near {draw.choice(BIRDS)}s and {draw.choice(STONES)}s."} for text in following(90)]
    )
    outcome = trained("next-sentence-prediction", table, epochs=2)
    assert outcome.dataset["samples_train"] % 2 == 0
    assert outcome.bundle.labels == ("is_next", "not_next")
    assert set(outcome.evaluation) >= {"accuracy", "f1", "per_class", "confusion"}


def test_pairs_with_labels_are_learnt_and_classified_as_pairs(trained: Train, tmp_path: Path) -> None:
    draw = random.Random(10)
    rows = []  # stones follow birds, and birds do not follow stones: which text is which has to be seen
    for number in range(50):
        texts = [f"the {draw.choice(BIRDS)} {draw.choice(('by', 'near'))}", f"{draw.choice(('town', 'old'))} {draw.choice(STONES)}"]
        rows.append(dict(zip(("text", "second"), texts if number % 2 else texts[::-1], strict=True)) | {"label": number % 2})
    columns = {"pair_column": "second"}
    with pytest.raises(InvalidRequest, match="does not say whether"):
        trained("next-sentence-prediction", jsonl(tmp_path / "odd.jsonl", [{**row, "label": "maybe"} for row in rows]), dataset=columns)
    outcome = trained("next-sentence-prediction", jsonl(tmp_path / "rows.jsonl", rows), epochs=20, lr=1e-3, dataset=columns)
    model = engine.load(outcome.bundle)
    told = classifier.classify(model, [row["text"] for row in rows], pairs=[row["second"] for row in rows])
    right = [one.label == ("not_next", "is_next")[row["label"]] for one, row in zip(told, rows, strict=True)]
    assert sum(right) / len(right) > 0.95
    with pytest.raises(InvalidRequest) as caught:
        classifier.classify(model, ["the robin"])
    assert caught.value.field == "predict_input.text_pair"


def test_sentences_are_cut_at_their_punctuation() -> None:
    text = 'We measure 3.5 GeV. "Is it so?" Yes! e.g. this one stays\n\nA paragraph'
    assert sentences(text) == ["We measure 3.5 GeV.", '"Is it so?', "Yes! e.g. this one stays", "A paragraph"]
