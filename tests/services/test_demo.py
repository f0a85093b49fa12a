"""The demo, as `make demo` runs it: the main job from end to end on real Kafka."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.services, pytest.mark.training]


def running(marker: str) -> list[str]:
    """Command lines of processes that mention `marker`."""
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(process.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return [line for line in lines if marker in line]


def test_the_demo_does_its_whole_job_and_leaves_nothing_running(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    ran = subprocess.run(
        [sys.executable, "-m", "mlaas.cli", "demo", "--output", str(result), "--json"], capture_output=True, text=True, timeout=1200
    )
    assert ran.returncode == 0, ran.stderr
    document = json.loads(result.read_text())
    assert document["failed"] is None
    assert json.loads(ran.stdout) == document["figures"]
    kinds = [one["event"]["type"].removeprefix("it.infn.mlaas.").removesuffix(".v1") for one in document["events"]]
    for kind in ("train.accepted", "train.progressed", "train.succeeded", "index.accepted", "index.succeeded", "classify.succeeded",
                 "fill_mask.succeeded", "search.succeeded"):  # fmt: skip
        assert kind in kinds
    told = [one["event"] for one in document["events"]]
    trained = {one["id"]: one["data"]["result"]["model"]["name"] for one in told if one["type"].endswith("train.succeeded.v1")}
    indexed = next(one for one in told if one["type"].endswith("index.accepted.v1"))
    assert sorted(trained.values()) == ["infn-structures", "physics-lm"]
    assert trained[indexed["causationid"]] == "infn-structures"
    assert {one["by"] for one in document["requests"]} == {"Kafka", "HTTP"}
    assert running("mlaas-demo-") == []
