"""Rows in chunks of bounded memory, the same each time."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlaas import references
from mlaas.batch import rows
from mlaas.batch.rows import Row, chunks, rows_of_chunk


def lengths(texts: list[str | None], size: int) -> list[int]:
    return [len(chunk) for chunk in chunks((Row(number, text, None) for number, text in enumerate(texts)), size)]


def test_a_chunk_has_the_rows_that_are_asked_for_and_the_last_one_the_rest() -> None:
    assert lengths(["x"] * 7, 3) == [3, 3, 1]
    assert lengths(["x"] * 6, 3) == [3, 3]
    assert lengths([], 3) == []


def test_a_chunk_of_long_texts_has_fewer_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "CHUNK_CHARACTERS", 10)
    assert lengths(["x" * 6, "x" * 6, None, "", "x" * 50, "x"], 4) == [2, 3, 1]


def test_a_chunk_has_fewer_rows_where_each_gets_much() -> None:
    assert rows_of_chunk(4096, 1) == 4096
    assert rows_of_chunk(4096, 1000) == 100
    assert rows_of_chunk(0, 1) == 1


def test_the_digest_of_a_folder_changes_with_each_file_and_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\nx\n")
    seen = {references.digest(tmp_path)}
    (tmp_path / "a.csv").write_text("text\ny\n")
    seen.add(references.digest(tmp_path))
    (tmp_path / "a.csv").rename(tmp_path / "b.csv")
    seen.add(references.digest(tmp_path))
    assert len(seen) == 3
    assert references.digest(tmp_path / "b.csv") not in seen
