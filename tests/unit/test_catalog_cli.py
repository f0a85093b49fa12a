"""`mlaas catalog`: what it changes and what it says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mlaas import documents
from mlaas.catalog import Catalog
from mlaas.cli import app
from mlaas.settings import Settings


def mlaas(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["catalog", *arguments])


@pytest.fixture
def catalog(home: Settings) -> Catalog:
    catalog = Catalog(documents.shared())
    for digest in ("d1", "d2"):
        catalog.publish("models", "birds", digest, {"objective": "text-classification"})
    return catalog


def test_an_alias_moves_and_goes_back(catalog: Catalog) -> None:
    for version in ("1", "2"):
        assert mlaas("alias", "birds", "production", version).exit_code == 0
    assert "birds@production is version 1 again" in mlaas("rollback", "birds", "production").stdout
    assert catalog.resolve("models", "birds", alias="production")["digest"] == "d1"
    assert mlaas("rollback", "birds", "production").exit_code != 0


def test_a_version_that_is_needed_is_not_deleted_and_one_that_is_not_is(catalog: Catalog) -> None:
    catalog.set_alias("models", "birds", "production", "2")
    refused = mlaas("delete", "birds", "2")
    assert refused.exit_code != 0
    assert "alias `production`" in refused.stderr
    assert json.loads(mlaas("delete", "birds", "1", "--json").stdout)["digest"] == "d1"
    assert [one["version"] for one in catalog.versions("models", "birds")] == ["2"]


def test_all_kinds_are_listed_and_another_one_is_refused_with_their_names(catalog: Catalog) -> None:
    catalog.publish("datasets", "rows", "d3", {"count": 3})
    listed = json.loads(mlaas("--json").stdout)
    assert [one["name"] for one in listed["datasets"]["versions"]] == ["rows"]
    assert {"models", "indexes", "datasets"} == set(listed)
    assert "models, indexes, datasets" in mlaas("--kind", "pictures").stderr


def test_a_folder_is_pushed_found_and_made_public(catalog: Catalog, home: Settings, tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.csv").write_text("text,label\nINFN Pisa,PI\n")
    pushed = mlaas("push", "datasets", "rows", str(tmp_path / "rows"), "--tag", "infn", "--licence", "cc0-1.0", "--json")
    assert (pushed.exit_code, json.loads(pushed.stdout)["count"]) == (0, 1), pushed.output
    assert mlaas("edit", "rows", "--kind", "datasets", "--visibility", "public", "--description", "Affiliations").exit_code == 0
    listed = json.loads(mlaas("list", "affiliations", "--kind", "datasets", "--tag", "infn", "--json").stdout)
    assert [(one["name"], one["visibility"], one["licence"]) for one in listed["items"]] == [("rows", "public", "cc0-1.0")]
    assert "rows" in mlaas("list", "--kind", "datasets").stdout
    shutil.rmtree(home.artefacts / "uploads")


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "--sort", "colour"),
        ("edit", "birds"),
        ("edit", "birds", "--visibility", "secret"),
        ("edit", "nobody", "--owner", "ada"),
        ("push", "models", "birds", "README.md"),
        ("push", "indexes", "birds", "README.md"),
        ("push", "datasets", "Birds!", "README.md"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_remedy(catalog: Catalog, arguments: tuple[str, ...]) -> None:
    refused = mlaas(*arguments)
    assert refused.exit_code == 3, refused.output
    assert len(refused.stderr.strip().splitlines()) >= 2
