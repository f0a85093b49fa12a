"""A download to a folder of the user's: whole and verified, or not there."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlaas import storage
from mlaas.bundles import open_bundle
from mlaas.errors import InvalidRequest
from mlaas.settings import Settings
from mlaas.testing import tiny_models


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(home=tmp_path / "home")
    storage.publish(tiny_models.embedder(tmp_path / "made").folder, "m", "local", "v1", settings=settings)
    return settings


def test_a_folder_is_copied_whole_and_says_how_far_it_is(settings: Settings, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    storage.download("m", "local", tmp_path / "copy", settings=settings, progress=lambda *done: seen.append(done))
    assert open_bundle(tmp_path / "copy").digest == open_bundle(tmp_path / "made").digest
    total = sum(one.stat().st_size for one in (tmp_path / "made").iterdir())
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)


def test_one_file_is_copied_into_the_folder(settings: Settings, tmp_path: Path) -> None:
    storage.download("m/v1/config.json", "local", tmp_path / "copy", settings=settings)
    assert os.listdir(tmp_path / "copy") == ["config.json"]


def test_a_folder_with_something_in_it_a_file_and_a_folder_nowhere_are_refused(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("kept")
    (tmp_path / "file").write_text("kept")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "x")
    for to in ("full", "file", "nowhere/x", "dangling"):
        with pytest.raises(InvalidRequest) as caught:
            storage.download("m", "local", tmp_path / to, settings=settings)
        assert caught.value.field == "to"
        assert str(tmp_path) not in caught.value.detail
    assert (tmp_path / "full" / "mine").read_text() == (tmp_path / "file").read_text() == "kept"


def test_what_is_not_as_its_manifest_says_is_not_left_there(settings: Settings, tmp_path: Path) -> None:
    (settings.artefacts / "m" / "v1" / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(InvalidRequest, match=r"`model\.onnx`"):
        storage.download("m", "local", tmp_path / "copy", settings=settings)
    assert sorted(os.listdir(tmp_path)) == ["home", "made"]


PROGRAM = """
import os, sys
from pathlib import Path
from mlaas import storage
from mlaas.settings import Settings
settings = Settings(home=Path(sys.argv[1]))
storage.download("m", "local", Path(sys.argv[2]), settings=settings, progress=lambda done, total: os.kill(os.getpid(), 9))
"""


def test_a_download_that_is_killed_leaves_no_folder_and_the_next_one_succeeds(settings: Settings, tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", PROGRAM, settings.home, tmp_path / "copy"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "copy").exists()
    (tmp_path / ".copy.partial" / "left").write_text("over")
    storage.download("m", "local", tmp_path / "copy", settings=settings)
    assert open_bundle(tmp_path / "copy").digest == open_bundle(tmp_path / "made").digest
    assert sorted(os.listdir(tmp_path / "copy")) == sorted(os.listdir(tmp_path / "made"))
    assert not (tmp_path / ".copy.partial").exists()


def test_two_downloads_to_one_folder_do_not_mix(settings: Settings, tmp_path: Path) -> None:
    refused: list[InvalidRequest] = []

    def another(done: int, total: int) -> None:
        if not refused:
            with pytest.raises(InvalidRequest, match="at work") as caught:
                storage.download("m", "local", tmp_path / "copy", settings=settings)
            refused.append(caught.value)

    storage.download("m", "local", tmp_path / "copy", settings=settings, progress=another)
    assert refused
    assert open_bundle(tmp_path / "copy").digest == open_bundle(tmp_path / "made").digest
