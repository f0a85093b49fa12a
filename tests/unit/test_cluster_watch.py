"""What kubectl's watch prints is read in both of its forms."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from typing import Any

import pytest

from mlaas.testing import cluster


def event(name: str) -> dict[str, Any]:
    status = {"conditions": [{"type": "PodScheduled", "status": "True"}], "containerStatuses": [{"name": "f", "state": {"running": {}}}]}
    return {"type": "ADDED", "object": {"metadata": {"name": name}, "status": status}}


@pytest.mark.parametrize("indent", [None, 4])
def test_every_pod_of_a_watch_is_noted(indent: int | None) -> None:
    text = "".join(json.dumps(event(name), indent=indent) + "\n" for name in ("a", "b"))
    times = cluster.PodTimes()
    cluster._read(SimpleNamespace(stdout=io.StringIO(text)), times)  # type: ignore[arg-type]
    assert list(times.seen) == ["a", "b"]
    assert {"PodScheduled", "started f"} <= times.seen["b"].keys()
