"""What a request may have done to its texts and classes before it trains."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("ftfy")
import torch

from mlaas.contracts import CleanUp, ModelTrain, TrainDataset, TrainRequest, parse
from mlaas.errors import InvalidRequest
from mlaas.testing.tiny_checkpoints import write_checkpoint, write_rows
from mlaas.training import pipelines
from mlaas.training.batches import Batch
from mlaas.training.cleanup import cleaner
from mlaas.training.objectives import Scored
from mlaas.training.optimization import Compute
from mlaas.training.pairs import Pair, read_pairs
from mlaas.training.rows import Row, clean
from mlaas.training.run import Outcome, Sources, train
from mlaas.training.steps import Stepper
from mlaas.training.supported import check_data
from mlaas.training.text_classification import Weighed
from mlaas.training.weights import class_weights


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("UniversitÃ\xa0 di Pisa &amp; INFN", "Università di Pisa & INFN"),
        ("Universita\u0300", "Università"),
        ("two  spaces,\na line and\u200b nothing ", "two spaces, a line and nothing"),
        (r"the $\beta$ and $\nu$ of \textbf{TeX}", r"the $\beta$ and $\nu$ of \textbf{TeX}"),
        ("“quoted” by the author’s ﬁne hand", "“quoted” by the author’s ﬁne hand"),
        ("see https://infn.it/a?b=c.", "see https://infn.it/a?b=c."),
    ],
)
def test_texts_are_repaired_and_what_is_right_stays(text: str, cleaned: str) -> None:
    assert cleaner(CleanUp())(text) == cleaned
    assert cleaner(CleanUp())(cleaned) == cleaned


def test_each_repair_can_be_left_out_and_nothing_is_done_unasked() -> None:
    text = " UniversitÃ\xa0  www.infn.it "
    assert cleaner(None)(text) == text.strip()
    assert cleaner(CleanUp(mojibake=False, unicode=None, whitespace=False))(text) == text.strip()
    assert cleaner(CleanUp(unicode="NFKC"))("ﬁne") == "fine"


def test_addresses_become_what_the_request_says() -> None:
    asked = CleanUp(urls=r"<url\1>", emails="")
    assert cleaner(asked)("see (https://a.b/c?x=1), www.infn.it. or ask@infn.it") == r"see (<url\1>), <url\1>. or"
    assert cleaner(asked)("a ratio s/d at 3.5, p.p@x") == "a ratio s/d at 3.5, p.p@x"


def records(*texts: str) -> list[dict[str, Any]]:
    return [{"text": text, "label": "X"} for text in texts]


def test_rows_are_compared_after_the_clean_up() -> None:
    raw = records("Università", "UniversitÃ\xa0", "UniversitÃ\xa0 ", "\u200b")
    assert len(clean(raw, TrainDataset(path="x"), labelled=True).rows) == 3
    cleaned = clean(raw, TrainDataset(path="x", clean=CleanUp()), labelled=True)
    assert list(cleaned.rows) == [Row("Università", "X")]
    assert (cleaned.dropped_empty, cleaned.dropped_duplicates) == (1, 2)


def test_normalised_duplicates_are_dropped_and_the_first_spelling_stays() -> None:
    raw = [*records("INFN, Pisa", "infn - PISA", "INFN Pisa."), {"text": "infn pisa", "label": "Y"}]
    assert len(clean(raw, TrainDataset(path="x", deduplicate="exact"), labelled=True).rows) == 4
    found = clean(raw, TrainDataset(path="x", deduplicate="normalised"), labelled=True)
    assert list(found.rows) == [Row("INFN, Pisa", "X"), Row("infn pisa", "Y")]
    assert found.dropped_duplicates == 2


def test_pairs_are_cleaned_and_compared_in_both_texts(tmp_path: Path) -> None:
    rows = [("A\u0300 b", "c  d"), ("À B", "C d"), ("À b", "other"), ("e", "f")]
    table = tmp_path / "pairs.jsonl"
    table.write_text("".join(json.dumps({"title": first, "abstract": second}) + "\n" for first, second in rows))
    asked = TrainDataset(path="x", text_column="title", pair_column="abstract", clean=CleanUp(), deduplicate="normalised")
    read = read_pairs(table, asked, labelled=False)
    assert list(read.pairs) == [Pair("À b", "c d"), Pair("À b", "other"), Pair("e", "f")]
    assert read.dropped_duplicates == 1


def test_balanced_weights_give_each_class_the_same_say_and_the_rows_a_mean_of_one() -> None:
    counts = (90, 9, 1)
    weights = class_weights("balanced", ("a", "b", "c"), counts)
    assert [weight * count for weight, count in zip(weights, counts, strict=True)] == pytest.approx([100 / 3] * 3)
    assert class_weights("none", ("a", "b", "c"), counts) == (1.0, 1.0, 1.0)
    named = class_weights({"c": 10}, ("a", "b", "c"), counts)
    assert named[2] / named[0] == pytest.approx(10)
    assert sum(weight * count for weight, count in zip(named, counts, strict=True)) == pytest.approx(100)


def test_a_weight_for_a_label_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="`d`") as caught:
        class_weights({"d": 2}, ("a", "b"), (1, 1))
    assert (caught.value.field, caught.value.remedy) == ("dataset.class_weights", "The labels are: a, b.")


class Weighing:
    fresh: frozenset[str] = frozenset()

    def __init__(self) -> None:
        torch.manual_seed(3)
        self.model = torch.nn.Linear(3, 2)

    def score(self, batch: Batch) -> Scored:
        return Weighed(self.model(batch.inputs["x"]), batch.targets, torch.tensor([0.5, 4.0]))


def test_accumulated_batches_make_the_step_of_one_batch_with_weights_too() -> None:
    draw = torch.Generator().manual_seed(7)
    x, targets = torch.rand((8, 3), generator=draw), torch.tensor([0, 1, 0, 0, 0, 0, 1, 0])

    def gradient(*parts: slice) -> torch.Tensor:
        task = Weighing()
        stepper = Stepper(task, ModelTrain(), Compute(torch.device("cpu")), 10)  # type: ignore[arg-type]
        stepper.step([Batch(inputs={"x": x[part]}, targets=targets[part], tokens=1) for part in parts], 0)
        assert task.model.weight.grad is not None
        return task.model.weight.grad

    assert torch.allclose(gradient(slice(0, 8)), gradient(slice(0, 3), slice(3, 8)), atol=1e-7)


def asking(model: dict[str, Any], **dataset: Any) -> TrainRequest:
    settings = {} if "architecture" in model else {"model_train": {"epochs": 5, "batch_size": 8, "optimizer": {"init_lr": 1e-2}}}
    return parse(
        TrainRequest,
        {
            "model": {"objective": "text-classification", **model},
            "dataset": {"path": "rows.jsonl", "train_test_split": 0.2, **dataset},
            "model_save": {"path": "trained"},
            **settings,
        },
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    folder = tmp_path_factory.mktemp("sources")
    table = write_rows(folder / "rows.jsonl")
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    table.write_text(
        "".join(json.dumps(row) + "\n" for row in rows if row["label"] == "bird") + json.dumps(rows[0]) + "\n" + json.dumps(rows[1]) + "\n"
    )
    return Sources(checkpoint=write_checkpoint(folder / "encoder"), tokenizer=None, table=table)


def taken_for_stone(outcome: Outcome) -> int:
    return sum(row[1] for row in outcome.evaluation["confusion"]["matrix"])


@pytest.mark.training
@pytest.mark.parametrize("model", [{"path": "tiny"}, {"architecture": "tfidf-linear"}, {"architecture": "tfidf-boosting"}])
def test_a_weighed_class_is_predicted_more_often(model: dict[str, Any], sources: Sources, tmp_path: Path) -> None:
    def run(name: str, weights: Any) -> Outcome:
        request = asking(model, class_weights=weights)
        if "architecture" in model:
            return pipelines.train(request, sources.table, tmp_path / name, lambda report: None)
        return train(request, sources, tmp_path / name, lambda report: None)

    plain, weighed = run("plain", "none"), run("weighed", {"stone": 100_000})
    assert taken_for_stone(plain) < taken_for_stone(weighed)


@pytest.mark.training
def test_weights_replace_the_tempered_sampling_and_are_in_the_provenance(sources: Sources, tmp_path: Path) -> None:
    outcome = train(asking({"path": "tiny"}, class_weights="balanced"), sources, tmp_path / "bundle", lambda report: None)
    notes = outcome.provenance["training"]
    assert all(each["has"] == each["gives"] for each in notes["sampling"]["rows_per_epoch"].values())
    assert notes["class_weights"]["stone"] > 10 * notes["class_weights"]["bird"]


@pytest.mark.parametrize(
    ("objective", "asked"),
    [
        ("masked-lm", {"class_weights": "balanced"}),
        ("token-classification", {"clean": {}}),
        ("question-answering", {"deduplicate": "normalised"}),
    ],
)
def test_what_the_objective_has_no_use_for_is_refused_by_the_name_of_the_field(objective: str, asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_data(asking({"path": "x", "objective": objective}, **asked))
    assert caught.value.field == f"dataset.{next(iter(asked))}"
    check_data(asking({"path": "x", "objective": "masked-lm"}, clean={}, deduplicate="normalised"))
