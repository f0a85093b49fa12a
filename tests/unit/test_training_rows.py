"""What a training run makes of a table's rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from mlaas.contracts import TrainDataset
from mlaas.errors import InvalidRequest
from mlaas.training.rows import Row, clean, normalised, read_rows
from mlaas.training.splits import split

DATASET = TrainDataset(path="rows.tsv", text_column="affiliation", label_column="site")


def rows_of(**counts: int) -> list[Row]:
    return [Row(f"{label} number {index}", label) for label, count in counts.items() for index in range(count)]


def test_empty_unlabelled_and_duplicate_rows_are_dropped_and_counted() -> None:
    records = [("a", "X"), ("  ", "X"), (None, "X"), ("a", "X"), ("a", "Y"), ("b", ""), (" a ", "X"), ("c", 7)]
    cleaned = clean([{"affiliation": text, "site": label} for text, label in records], DATASET, labelled=True)
    assert list(cleaned.rows) == [Row("a", "X"), Row("a", "Y"), Row("c", "7")]
    assert (cleaned.dropped_empty, cleaned.dropped_unlabelled, cleaned.dropped_duplicates) == (2, 1, 2)


def test_labels_are_not_read_where_none_are_needed(tmp_path: Path) -> None:
    table = tmp_path / "rows.tsv"
    table.write_text("affiliation\na\nb\na\n", "utf-8")
    read = read_rows(table, DATASET, labelled=False)
    assert list(read.rows) == [Row("a"), Row("b")]
    assert read.dropped_duplicates == 1


def test_a_table_without_usable_rows_is_refused_with_the_field(tmp_path: Path) -> None:
    table = tmp_path / "rows.tsv"
    table.write_text("affiliation\tsite\nonly\tX\n\tX\n", "utf-8")
    with pytest.raises(InvalidRequest, match="1 usable rows") as caught:
        read_rows(table, DATASET, labelled=True)
    assert caught.value.field == "dataset.path"


def test_normalised_text_ignores_case_diacritics_punctuation_and_spacing() -> None:
    assert normalised("INFN – Sezione  di Forlì, Via X. 3") == normalised("infn, sezione di forli' via x 3")
    assert normalised("Pisa 3") != normalised("Pisa 4")
    assert normalised("???") != normalised("!!!")


def test_split_holds_out_the_fraction_of_every_label_and_keeps_thin_ones_for_training() -> None:
    rows = rows_of(A=100, B=40, C=6, D=1)
    train, test = split(rows, 0.1, seed=3)
    assert sorted(train + test) == list(range(len(rows)))
    assert Counter(rows[index].label for index in test) == {"A": 10, "B": 4, "C": 1}


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.95])
def test_split_leaves_every_label_something_to_learn_from(fraction: float) -> None:
    rows = rows_of(A=30, B=3, C=2, D=1)
    train, test = split(rows, fraction, seed=0)
    assert {rows[index].label for index in train} == {"A", "B", "C", "D"}
    assert test


def test_split_never_has_one_text_on_both_sides_whatever_its_spelling_or_label() -> None:
    texts = [f"place {index}" for index in range(60)]
    rows = (
        [Row(text, "A") for text in texts] + [Row(f"{text.upper()}, ", "A") for text in texts] + [Row(f"({text})", "B") for text in texts]
    )
    train, test = split(rows, 0.3, seed=1)
    assert test
    assert {normalised(rows[index].text) for index in train}.isdisjoint(normalised(rows[index].text) for index in test)


def test_split_is_the_same_for_a_seed_and_another_for_another() -> None:
    rows = rows_of(A=50, B=50)
    assert split(rows, 0.2, seed=5) == split(rows, 0.2, seed=5)
    assert split(rows, 0.2, seed=5) != split(rows, 0.2, seed=6)


def test_a_table_too_small_for_the_fraction_still_holds_one_row_out() -> None:
    assert len(split(rows_of(A=3, B=2), 0.1, seed=0)[1]) == 1


def test_a_table_of_which_nothing_can_be_held_out_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        split(rows_of(A=1, B=1), 0.5, seed=0)
    assert caught.value.field == "dataset.train_test_split"
