"""The newest releases of the clients that people have, each in an environment of its own, against `mlaas up`.

They are not run with the other tests, because they are fetched from the package index when they run and what is newest changes:
`python -m pytest tests/clients`. KServe's and the second version of CloudEvents' SDK are tried only here, since neither can be
installed beside what the platform needs (psutil below 6; cloudevents below 2, for parliament).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlaas.testing.homes import tiny_home
from mlaas.testing.processes import Up

HERE = Path(__file__).parent
GUIDE = re.findall(r"^```python\n(.*?)^```$", (HERE.parents[1] / "docs" / "protocols.md").read_text(), re.MULTILINE | re.DOTALL)
LABELS = ["LNF", "[NoSite]"]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    up = Up(tiny_home(tmp_path_factory.mktemp("clients")).home)
    with up.running():
        yield up


def answered(up: Up, folder: Path, packages: list[str], program: Path | str) -> str:
    """What `program` prints with the newest `packages`."""
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    assert uv, "make setup installs uv"
    python = folder / "venv" / "bin" / "python"
    for command in (["venv", "--quiet", str(folder / "venv")], ["pip", "install", "--quiet", "--python", str(python), *packages]):
        subprocess.run([uv, *command], check=True, timeout=300)
    found = subprocess.run([uv, "pip", "freeze", "--python", str(python)], check=True, capture_output=True, text=True).stdout
    print("\n".join(line for line in found.splitlines() if line.split("==")[0] in {name.split("[")[0].split(">")[0] for name in packages}))
    command = [str(python), str(program)] if isinstance(program, Path) else [str(python), "-c", program]
    environment = {"PATH": os.environ["PATH"], "MLAAS": up.url, "MLAAS_KAFKA": up.kafka}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_triton(up: Up, tmp_path: Path) -> None:
    assert answered(up, tmp_path, ["tritonclient[http]"], GUIDE[0]) == "[b'LNF', b'[NoSite]'] (2, 4)"


def test_openai(up: Up, tmp_path: Path) -> None:
    assert answered(up, tmp_path, ["openai"], GUIDE[1]) == "minilm:1 2 8"


def test_kserve(up: Up, tmp_path: Path) -> None:
    said = json.loads(answered(up, tmp_path, ["kserve"], HERE / "ask_kserve.py"))
    assert said == {"ready": [True, True, True], "labels": [LABELS, LABELS]}


def test_cloudevents(up: Up, tmp_path: Path) -> None:
    said = json.loads(answered(up, tmp_path, ["cloudevents>=2", "kafka-python", "requests"], HERE / "ask_cloudevents.py"))
    assert said == {f"{way} {mode}": LABELS for way in ("http", "kafka") for mode in ("binary", "structured")}
