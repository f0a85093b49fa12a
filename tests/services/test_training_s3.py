"""Checkpoints of a training in a real S3 store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mlaas import storage
from mlaas.contracts import ModelSave
from mlaas.settings import Settings
from mlaas.testing.s3_server import BUCKET, S3Server
from mlaas.training.drafts import StoredDrafts

pytestmark = pytest.mark.services


def writer(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "state.json").write_text(text)
        (folder / "weights.safetensors").write_bytes(text.encode() * 1000)

    return write


def test_checkpoints_live_in_s3_and_the_last_complete_one_is_found_elsewhere(s3_server: S3Server, tmp_path: Path) -> None:
    def machine(name: str, fingerprint: str = "same") -> StoredDrafts:
        settings = Settings(home=tmp_path / name, s3_endpoint=s3_server.endpoint)
        return StoredDrafts(
            ModelSave(path=f"{BUCKET}/drafts/model", storage_type="s3"), "some-task", settings, tmp_path / name, fingerprint
        )

    first = machine("first")
    assert first.load() is None
    first.save(writer("one"))
    first.save(writer("two"))
    assert len(storage.names(first.path, "s3", settings=first.settings)) == 3, "only the last one and its manifest are kept"
    second = machine("second")
    files = second.load()
    assert files is not None
    assert files["state.json"].read_text() == "two"
    assert files["weights.safetensors"].read_bytes() == b"two" * 1000
    assert machine("third", "other").load() is None
    second.save(writer("three"))
    found = first.load()
    assert found is not None
    assert found["state.json"].read_text() == "three"
    second.clear()
    assert storage.names(first.path, "s3", settings=first.settings) == []
    assert first.load() is None
