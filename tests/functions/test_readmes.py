"""The event in each function's README gets the reply in the README; only times, digests and scores may differ."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlaas import events

FUNCTIONS = Path(__file__).parent.parent.parent / "functions"
NAMES = sorted(path.parent.name for path in FUNCTIONS.glob("*/func.py"))
VARYING = {"time", "submitted", "digest", "score", "probability", "servertiming", "traceparent", "vectors"}


def fixed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: "..." if name in VARYING else fixed(item) for name, item in value.items()}
    return [fixed(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_tells_the_truth(name: str, client_of: Callable[[str], Any]) -> None:
    request, reply = re.findall(r"```json\n(.*?)```", (FUNCTIONS / name / "README.md").read_text(), re.DOTALL)
    answer = client_of(name).post("/", data=request, headers={"Content-Type": "application/cloudevents+json"})
    assert fixed(events.to_json(events.from_request(dict(answer.headers), answer.data))) == fixed(json.loads(reply))
