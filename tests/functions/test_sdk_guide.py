"""The examples of docs/sdk.md, run one after the other against the functions."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from mlaas import samples
from mlaas.client import Client
from mlaas.documents import shared
from mlaas.settings import Settings
from mlaas.tasks import Tasks

GUIDE = (Path(__file__).parents[2] / "docs" / "sdk.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


def test_every_example_of_the_guide_runs(
    gateway: str, home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    samples.write(tmp_path / "samples", affiliations=200)
    shutil.copytree(tmp_path / "samples", home.artefacts / "samples", dirs_exist_ok=True)
    shutil.copy(home.artefacts / "affiliations.tsv", tmp_path / "affiliations.tsv")
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {}
    for example in EXAMPLES:
        exec(compile(example, "docs/sdk.md", "exec"), known)
    known["client"].close()
    said = capsys.readouterr().out
    assert "LNF 1\n" in said
    assert "model.name" in said
    assert [task["task_id"] for task in Tasks(shared()).find()[0]] == [known["task"].id]
    assert (tmp_path / "physics-lm-files" / "model.onnx").is_file()
    shutil.rmtree(home.artefacts / "uploads")


def test_the_guide_names_the_calls_that_there_are(gateway: str) -> None:
    with Client(gateway) as client:
        listed = re.search(r"`client.datasets` have (.*?)\.\n", GUIDE, re.DOTALL)
        assert listed
        named = set(re.findall(r"`(\w+)`", listed[1]))
        assert named == {name for name in dir(client.models) if not name.startswith("_")} - {"client", "link", "kind", "perform"}
