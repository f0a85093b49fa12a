"""The table of faults says only what a passed test has measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlaas.testing.fault_table import Row, insert, render


def row(**fields: object) -> Row:
    made = Row(fault="kill -9 of S3")
    made.measured(moment="at 3 MB", in_flight="a publish", lost=0, twice=2, seconds=1.26)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def test_a_row_that_passed_says_what_was_measured() -> None:
    assert row(outcome="passed").cells() == ["kill -9 of S3", "at 3 MB", "a publish", "0", "2", "1.3 s"]


@pytest.mark.parametrize("outcome", ["failed", "not run"])
def test_a_row_that_did_not_pass_never_says_that_nothing_was_lost(outcome: str) -> None:
    assert row(outcome=outcome).cells()[3] == f"**{outcome}**"
    assert "0" not in row(outcome=outcome).cells()[3:]


def test_a_test_that_measured_nothing_says_so_though_it_passed() -> None:
    assert Row(fault="x", outcome="passed").cells()[3] == "**passed**"


def test_the_table_counts_the_rows_that_passed() -> None:
    assert render([row(outcome="passed"), row(outcome="failed")], ["seed 1"]).startswith("seed 1; 1 of 2 rows passed.\n")


def test_the_table_replaces_the_one_before_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text("before\n<!-- faults: begin -->\nold\n<!-- faults: end -->\nafter\n")
    for _ in range(2):
        insert(file, "new")
    assert file.read_text() == "before\n<!-- faults: begin -->\nnew\n<!-- faults: end -->\nafter\n"


def test_a_page_without_the_place_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text("<!-- faults: end --> <!-- faults: begin -->")
    with pytest.raises(ValueError, match="no <!--"):
        insert(file, "new")
    assert file.read_text() == "<!-- faults: end --> <!-- faults: begin -->"
