"""Models that were put on the machine beforehand: used before any download, and only if they are what their name says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mlaas import bundles, storage
from mlaas.errors import Unavailable
from mlaas.settings import Settings
from mlaas.storage.staged import staged

AWAY = "http://127.0.0.1:9"


@pytest.fixture
def version(tmp_path: Path) -> str:
    """A staged version's name."""
    folder = tmp_path / "staged" / "new"
    folder.mkdir(parents=True)
    for name in ("model.onnx", "tokenizer.json", "config.json"):
        (folder / name).write_text("{}")
    digest = bundles.write_manifest(folder, objective="no-objective", max_length=128, provenance={}).digest
    folder.rename(tmp_path / "staged" / digest[:16])
    return digest[:16]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", staged=tmp_path / "staged", s3_endpoint=AWAY)


def test_a_staged_version_is_used_without_asking_the_object_store(version: str, settings: Settings, tmp_path: Path) -> None:
    expected = tmp_path / "staged" / version
    assert storage.fetch(f"bucket/models/minilm/{version}", "s3", settings=settings) == expected
    assert storage.fetch("bucket/models/minilm", "s3", settings=settings, revision=version) == expected
    assert not settings.downloads.exists()


def test_a_staged_version_that_cannot_be_written_is_used(version: str, settings: Settings) -> None:
    place = settings.staged / version  # type: ignore[operator]
    place.chmod(0o555)
    assert staged(version, settings) == place


@pytest.mark.parametrize("spoil", [
    lambda folder: (folder / "model.onnx").write_text("another"),
    lambda folder: (folder / "model.onnx").unlink(),
    lambda folder: (folder / "manifest.json").unlink(),
    lambda folder: (folder / "manifest.json").write_text('{"files": {"model.onnx": {"size": 2, "sha256": "' + "0" * 64 + '"}}}'),
])  # fmt: skip
def test_what_is_not_the_version_that_its_name_says_is_not_used(version: str, settings: Settings, spoil: object) -> None:
    spoil(settings.staged / version)  # type: ignore[operator]
    with pytest.raises(Unavailable):
        storage.fetch(f"bucket/models/minilm/{version}", "s3", settings=dataclasses.replace(settings, s3_endpoint=AWAY))


@pytest.mark.parametrize("name", ["", "new", ".." + "/" * 16, "../../../../../../../etc", "0" * 16])
def test_other_names_are_no_staged_versions(version: str, settings: Settings, name: str) -> None:
    assert staged(name, settings) is None
    assert staged(version, dataclasses.replace(settings, staged=None)) is None
