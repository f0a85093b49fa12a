"""The event in each function's README gets the reply in the README; only times, digests and scores may differ."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlaas import events

FUNCTIONS = Path(__file__).parent.parent.parent / "functions"
NAMES = sorted(path.parent.name for path in FUNCTIONS.glob("*/func.py"))
VARYING = {"time", "submitted", "digest", "score", "probability", "servertiming", "traceparent", "vectors"}
# What Knative's schema of func.yaml requires and allows at the top, and for which it has a pattern.
FUNC_YAML = {"specVersion", "name", "domain", "runtime", "registry", "image", "namespace", "created", "invoke", "build", "run", "deploy"}


def fixed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: "..." if name in VARYING else fixed(item) for name, item in value.items()}
    return [fixed(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_tells_the_truth(name: str, client_of: Callable[[str], Any]) -> None:
    request, reply = re.findall(r"```json\n(.*?)```", (FUNCTIONS / name / "README.md").read_text(), re.DOTALL)
    answer = client_of(name).post("/", data=request, headers={"Content-Type": "application/cloudevents+json"})
    assert fixed(events.to_json(events.from_request(dict(answer.headers), answer.data))) == fixed(json.loads(reply))


@pytest.mark.parametrize("name", NAMES)
def test_func_yaml_has_what_the_func_command_needs(name: str) -> None:
    spec = yaml.safe_load((FUNCTIONS / name / "func.yaml").read_text())
    assert set(spec) <= FUNC_YAML
    assert tuple(map(int, spec["specVersion"].split("."))) >= (0, 36, 0)
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", spec["name"])
    assert spec["name"].replace("-", "_") == name
    assert spec["created"]
    assert (spec["runtime"], spec["invoke"]) == ("python", "cloudevent")
    assert spec["deploy"]["healthEndpoints"] == {"liveness": "/health/liveness", "readiness": "/health/readiness"}
    assert all(re.fullmatch(r"[-._a-zA-Z][-._a-zA-Z0-9]*", env["name"]) and isinstance(env["value"], str) for env in spec["run"]["envs"])
