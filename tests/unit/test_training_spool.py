"""Rows of a training on disk: read back as they were, in any order, in little memory, with the results of rows in memory."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas.entities import Span
from mlaas.errors import InvalidRequest
from mlaas.training import spool
from mlaas.training.masking import Chunk
from mlaas.training.rows import Row
from mlaas.training.splits import split
from mlaas.training.spool import Records, Selected, check_room, packed, token_ids, unpacked
from mlaas.training.tagged import Sentence


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_rows_come_back_in_any_order_and_leave_no_file(tmp_path: Path) -> None:
    records = Records(tmp_path, lambda row: packed(row.text, row.label), lambda content: Row(*unpacked(content)))
    rows = [Row("x" * size, str(size)) for size in (0, 5, 3_000_000, 1, 0)]
    for row in rows:
        records.append(row)
    assert [records[index] for index in (4, 2, 0, 3, 1)] == [rows[index] for index in (4, 2, 0, 3, 1)]
    records.append(Row("later"))
    assert (list(records), records[-1], len(records)) == ([*rows, Row("later")], Row("later"), 6)
    assert list(records[1:4]) == rows[1:4]
    with pytest.raises(IndexError):
        records[6]
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=50), max_size=40))
def test_token_ids_are_the_same_numbers_and_their_lengths_are_known_without_reading(rows: list[list[int]]) -> None:
    ids = token_ids(None)
    ids.extend(rows)
    assert list(ids) == rows
    assert (ids.sizes // spool.ID_BYTES).tolist() == [len(row) for row in rows]


@given(st.lists(st.text(st.characters(), max_size=20), max_size=5))
def test_any_text_is_kept_as_it_is(texts: list[str]) -> None:
    assert unpacked(packed(*texts)) == texts


def test_texts_that_are_no_unicode_are_kept_too() -> None:
    assert unpacked(packed("\ud800", "\0")) == ["\ud800", "\0"]


def test_chunks_and_sentences_come_back_as_they_were() -> None:
    chunk = Chunk((2, 70_000, 8, 3), (None, 0, 0, None))
    assert Chunk.from_bytes(chunk.to_bytes()) == chunk
    sentence = Sentence(("a", "neüral", "net"), (Span(1, 3, "Task"),))
    assert Sentence.from_bytes(sentence.to_bytes()) == sentence


def test_a_selection_is_of_the_rows_that_it_names() -> None:
    chosen = Selected(["a", "b", "c", "d"], [3, 1])
    assert (list(chosen), len(chosen), chosen[0], list(chosen[1:])) == (["d", "b"], 2, "d", ["b"])


def test_a_run_that_does_not_fit_on_the_disk_is_refused_before_it_begins_with_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        with (tmp_path / f"part-{number}.csv").open("wb") as file:
            file.truncate(50 * 1024**2)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, spool.RESERVE + 150 * 1024**2))
    with pytest.raises(InvalidRequest, match="at least 200 MiB are needed, 150 MiB are free") as caught:
        check_room(tmp_path, tmp_path / "part-*.csv")
    assert caught.value.field == "dataset.path"
    assert "MLAAS_HOME" in caught.value.remedy
    check_room(tmp_path, tmp_path / "part-0.csv")


def test_a_disk_that_fills_while_rows_are_written_ends_the_run_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, spool.RESERVE + 2 * spool.WRITTEN - 1))
    records = token_ids(tmp_path)
    row = [1] * (spool.WRITTEN // spool.ID_BYTES)
    records.append(row)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, spool.RESERVE))
    with pytest.raises(InvalidRequest, match="at least 2 MiB are needed, 0 MiB are free"):
        records.append(row)


def test_the_systems_word_that_the_disk_is_full_becomes_the_same_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = token_ids(tmp_path)

    class Full:
        def write(self, content: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(records, "_file", Full())
    with pytest.raises(InvalidRequest, match="do not fit on the job's disk"):
        records.append([1] * spool.WRITTEN)


def test_a_split_does_not_depend_on_where_the_rows_are(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    rows = [Row(f"Place {draw.integers(150)}{'.' * int(draw.integers(2))}", str(draw.integers(4))) for _ in range(400)]
    records = Records(tmp_path, lambda row: packed(row.text, row.label), lambda content: Row(*unpacked(content)))
    records.extend(rows)
    assert split(records, 0.2, 7) == split(rows, 0.2, 7)


MEASURE = """
import json, sys
from pathlib import Path
from mlaas.contracts import TrainDataset
from mlaas.training.rows import read_rows
from mlaas.training.splits import split
from mlaas.training.spool import Selected, token_ids

def grown(table):
    rows = read_rows(table, TrainDataset(path="x"), labelled=True, work=table.parent).rows
    sides = split(rows, 0.1, 0)
    ids = token_ids(table.parent)
    ids.extend([len(row.text) * 1000] * len(row.text) for row in Selected(rows, sides[0]))
    middle = ids[len(ids) // 2]
    return len(rows), int(ids.sizes.sum()), middle[-1] == len(middle) * 1000

def high():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

grown(Path(sys.argv[1]))
before = high()
found = grown(Path(sys.argv[2]))
print(json.dumps([high() - before, *found]))
"""


def test_the_memory_of_rows_does_not_grow_with_their_size(tmp_path: Path) -> None:
    def write(name: str, count: int, size: int) -> Path:
        path = tmp_path / name
        with path.open("w") as file:
            file.write("text,label\n")
            file.writelines(f"row {number} {'x' * size},{number % 3}\n" for number in range(count))
        return path

    few, many = write("few.csv", 100, 4_000), write("many.csv", 20_000, 4_000)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURE), str(few), str(many)], capture_output=True, text=True, check=True, timeout=120
    )
    growth, rows, id_bytes, right = json.loads(done.stdout)
    assert (rows, right) == (20_000, True)
    assert id_bytes > 250 * 1024**2
    assert many.stat().st_size > 75 * 1024**2
    assert growth < 24 * 1024**2


@pytest.mark.training
@pytest.mark.parametrize("objective", ["text-classification", "masked-lm"])
def test_rows_on_disk_train_to_the_losses_of_rows_in_memory(tmp_path: Path, objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlaas.contracts import TrainRequest, parse
    from mlaas.testing.tiny_checkpoints import write_checkpoint, write_rows
    from mlaas.training import preparing, run

    write_checkpoint(tmp_path / "bert")
    table = write_rows(tmp_path / "rows.jsonl")
    asked = {
        "model": {"path": "bert", "objective": objective},
        "model_train": {"epochs": 2, "batch_size": 8},
        "dataset": {"path": "rows.jsonl", "train_test_split": 0.2},
        "model_save": {"path": "out"},
    }
    sources = run.Sources(checkpoint=tmp_path / "bert", tokenizer=None, table=table)

    def trained(name: str) -> tuple[Any, Any]:
        outcome = run.train(parse(TrainRequest, asked), sources, tmp_path / name, lambda report: None)
        return outcome.history["loss"], outcome.evaluation["loss"]

    on_disk = trained("disk")
    prepare: Callable[..., Any] = preparing.prepare

    def held(preparation: Any) -> Any:
        task = prepare(preparation)
        for side in (task.train, task.test):
            _hold(side.ids if objective == "text-classification" else side)
        return task

    monkeypatch.setattr(preparing, "prepare", held)
    assert trained("memory") == on_disk


def _hold(records: Records[Any]) -> None:
    """Let the records be read from a list in memory."""
    rows: Sequence[Any] = list(records)
    kind = type("Held", (Records,), {"__getitem__": lambda self, index: rows[index]})
    records.__class__ = kind
