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


def test_what_hangs_on_a_name_is_listed(catalog: Catalog) -> None:
    for version in ("1", "2"):
        mlaas("alias", "birds", "production", version)
    assert [one["version"] for one in json.loads(mlaas("versions", "birds", "--json").stdout)["models"]["versions"]] == ["2", "1"]
    moves = json.loads(mlaas("aliases", "birds", "--json").stdout)
    assert [(one["alias"], one["version"]) for one in moves] == [("production", "1"), ("production", "2")]
    assert json.loads(mlaas("dependants", "birds", "--alias", "production", "--json").stdout) == [{"kind": "alias", "name": "production"}]
    assert json.loads(mlaas("dependants", "birds", "--version", "1", "--json").stdout) == []
    assert json.loads(mlaas("about", "birds", "--json").stdout)["aliases"] == {"production": "2"}
    assert json.loads(mlaas("show", "birds", "--alias", "production", "--json").stdout)["version"] == "2"
    assert "production" in mlaas("aliases", "birds").stdout
    files = {one["name"]: one for one in json.loads(mlaas("files", "minilm", "--json").stdout)}
    assert files["model.onnx"]["size"] > 0
    assert mlaas("unalias", "birds", "production").exit_code == 0
    assert catalog.aliases_of("models", "birds") == {}


def test_all_versions_are_deleted_only_when_that_is_said(catalog: Catalog) -> None:
    assert mlaas("delete", "birds").exit_code == 3
    assert mlaas("delete", "birds", "1", "--all").exit_code == 3
    catalog.set_alias("models", "birds", "production", "2")
    assert "alias `production`" in mlaas("delete", "birds", "--all").stderr
    mlaas("unalias", "birds", "production")
    assert mlaas("delete", "birds", "--all").exit_code == 0
    assert catalog.versions("models", "birds") == []


def test_a_card_is_given_to_versions_without_one(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "card.md").write_text("# Birds\n")
    assert mlaas("edit", "birds", "--card", f"@{tmp_path / 'card.md'}").exit_code == 0
    assert catalog.entry("models", "birds").card == "# Birds\n"
    assert mlaas("card", "birds", "--raw").stdout == "# Birds\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "--sort", "colour"),
        ("versions", "nobody"),
        ("aliases", "nobody"),
        ("files", "nobody"),
        ("dependants", "nobody"),
        ("unalias", "birds", "production"),
        ("about", "nobody"),
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
