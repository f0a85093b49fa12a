"""The reference pages and the README hold to the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlaas import reference
from mlaas.cli import app

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", sorted(reference.pages()))
def test_a_reference_page_is_what_the_code_says(name: str) -> None:
    assert (ROOT / "docs" / "reference" / name).read_text() == reference.pages()[name], "run `make docs`"


@pytest.mark.parametrize("command", [["up"], ["send"], ["watch"], ["classify"], ["fill-mask"], ["ner"], ["answer"], ["embed"], ["generate"], ["search"], ["index"], ["train"], ["tasks"], ["catalog"],
                                     ["export"], ["samples"], ["demo"], ["tasks", "show"], ["tasks", "cancel"], ["catalog", "show"], ["catalog", "alias"]])  # fmt: skip
def test_a_command_has_help_with_an_example(command: list[str]) -> None:
    said = CliRunner().invoke(app, [*command, "--help"])
    assert said.exit_code == 0
    assert "--json" in said.stdout
    assert re.sub(r"\s+", " ", said.stdout).find(f"Example: mlaas {' '.join(command)}") > 0


def test_every_link_of_the_readme_and_the_docs_leads_somewhere() -> None:
    pages = [
        ROOT / "README.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "functions").glob("*/README.md"),
        ROOT / "docs" / "reference" / "events.md",
    ]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"
