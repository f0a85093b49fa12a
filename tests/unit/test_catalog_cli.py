"""`mlaas catalog`: what it changes and what it says."""

from __future__ import annotations

import json

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
