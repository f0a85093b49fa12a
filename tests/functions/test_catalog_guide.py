"""The commands of docs/catalog.md, run one after the other against the function, do what the guide says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mlaas import settings, storage
from mlaas.catalog import Catalog
from mlaas.documents import shared
from mlaas.settings import Settings

ROOT = Path(__file__).parents[2]
COMMANDS = re.findall(r"^    (curl .*)$", (ROOT / "docs" / "catalog.md").read_text(), re.MULTILINE)


@pytest.fixture
def url(home: Settings, monkeypatch: pytest.MonkeyPatch, served: Callable[[str], str]) -> str:
    monkeypatch.setenv("MLAAS_TOKEN", "t")
    settings.current.cache_clear()
    catalog = Catalog(shared())
    first = catalog.resolve("models", "physics-lm")
    catalog.publish("models", "physics-lm", "another", {name: first[name] for name in ("path", "storage_type", "objective")})
    return served("catalog")


def catalog_model(home: Settings) -> Path:
    entry = Catalog(shared()).resolve("models", "infn-structures")
    return storage.fetch(entry["path"], entry["storage_type"], settings=home)


def test_every_command_of_the_guide_succeeds(url: str, home: Settings, tmp_path: Path) -> None:
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    shutil.copy(home.artefacts / "affiliations.tsv", tmp_path / "affiliations.tsv")
    model = catalog_model(home)
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        for file in model.iterdir():
            archive.write(file, file.name)
    where = {**os.environ, "CATALOG": url, "TOKEN": "t"}
    for command in COMMANDS:
        done = subprocess.run(["bash", "-c", f"{command} --fail-with-body"], env=where, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    catalog = Catalog(shared())
    assert catalog.resolve("models", "physics-lm", alias="production")["version"] == "1"
    assert [body["version"] for body in catalog.versions("models", "physics-lm")] == ["1"]
    assert catalog.entry("models", "physics-lm").visibility == "public"
    assert catalog.resolve("datasets", "affiliations")["count"] == 2
    assert catalog.resolve("models", "mine")["objective"] == "text-classification"
    shutil.rmtree(home.artefacts / "uploads")
    assert (tmp_path / "model.onnx").stat().st_size > 0
