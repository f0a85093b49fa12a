"""Each func.yaml: as the schema of Knative's func says, and the same as the manifest of its function."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft4Validator

ROOT = Path(__file__).parent.parent.parent
NAMES = sorted(path.parent.name for path in (ROOT / "functions").glob("*/func.py"))
sys.path.insert(0, str(ROOT / "images"))
import function_source  # noqa: E402 - not a package of the project


def func_yaml(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "functions" / name / "func.yaml").read_text())


def problems(spec: dict[str, Any]) -> list[str]:
    as_json = json.loads(json.dumps(spec, default=lambda moment: moment.isoformat()))  # YAML has times, JSON has none
    schema = json.loads((ROOT / "eventing" / "schemas" / "func_yaml.json").read_text())
    return [error.message for error in Draft4Validator(schema).iter_errors(as_json)]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_as_the_schema_of_func_says(name: str) -> None:
    assert problems(func_yaml(name)) == []


def test_what_is_no_text_where_func_wants_text_is_found() -> None:
    spec = func_yaml("classify")
    spec["deploy"]["options"]["resources"]["limits"]["cpu"] = 2
    assert problems(spec)


@pytest.mark.parametrize("name", NAMES)
def test_it_deploys_what_the_manifest_deploys(name: str) -> None:
    spec = func_yaml(name)
    service = yaml.safe_load((ROOT / "eventing" / "base" / f"{name}.service.yaml").read_text())
    template = service["spec"]["template"]
    pod, notes = template["spec"], template["metadata"]["annotations"]
    container = pod["containers"][0]
    assert spec["name"] == service["metadata"]["name"]
    assert spec["deploy"]["serviceAccountName"] == pod["serviceAccountName"]
    probes = {"liveness": container["livenessProbe"], "readiness": container["readinessProbe"]}
    assert spec["deploy"]["healthEndpoints"] == {kind: probe["httpGet"]["path"] for kind, probe in probes.items()}
    scale = spec["deploy"]["options"]["scale"]
    keys = {"min": "min-scale", "max": "max-scale", "utilization": "target-utilization-percentage"}
    assert {key: str(scale[key]) for key in keys} == {key: notes[f"autoscaling.knative.dev/{note}"] for key, note in keys.items()}
    limits = {**container["resources"]["limits"], "concurrency": pod["containerConcurrency"]}
    assert spec["deploy"]["options"]["resources"] == {"requests": container["resources"]["requests"], "limits": limits}
    places = {volume["path"]: volume["emptyDir"] for volume in spec["run"]["volumes"]}
    of_name = {volume["name"]: volume["emptyDir"] for volume in pod["volumes"]}
    assert places == {mount["mountPath"]: of_name[mount["name"]] for mount in container["volumeMounts"]}


@pytest.mark.parametrize("name", NAMES)
def test_its_environment_is_that_of_the_manifest_and_names_the_function(name: str) -> None:
    container = yaml.safe_load((ROOT / "eventing" / "base" / f"{name}.service.yaml").read_text())["spec"]["template"]["spec"]["containers"][
        0
    ]
    envs = func_yaml(name)["run"]["envs"]
    named = {env["name"]: env["value"] for env in envs if "name" in env}
    assert named == {"MLAAS_FUNCTION": container["args"][0], **{env["name"]: env["value"] for env in container["env"]}}
    whole = [env["value"] for env in envs if "name" not in env]
    sources = [container["envFrom"][0]["configMapRef"], container["envFrom"][1]["secretRef"]]
    kinds = ["configMap", "secret"]
    assert whole == [f"{{{{ {kind}:{source['name']} }}}}" for kind, source in zip(kinds, sources, strict=True)]


def test_a_folder_for_funcs_builders_has_all_that_a_build_needs(tmp_path: Path) -> None:
    (tmp_path / "mlaas-0.1.0-py3-none-any.whl").touch()
    function_source.write("classify", tmp_path, "mlaas-0.1.0-py3-none-any.whl")
    assert {path.name for path in tmp_path.iterdir()} == {
        "func.py", "func.yaml", "README.md", "Procfile", "requirements.txt", "constraints.txt", "mlaas-0.1.0-py3-none-any.whl",
    }  # fmt: skip
    pins, package = (tmp_path / "requirements.txt").read_text().splitlines()
    assert (tmp_path / pins.removeprefix("-c ")).read_text() == (ROOT / "constraints.txt").read_text()
    assert (tmp_path / package.partition("[")[0]).is_file()
    processes = dict(line.split(": ") for line in (tmp_path / "Procfile").read_text().splitlines())
    assert processes == {"web": "python -m mlaas.serve .", "parliament": "python -m parliament ."}
