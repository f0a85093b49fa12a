"""The Dockerfile and what builds it, as far as it goes without a builder; `make images` is the rest."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "images"))
import build  # noqa: E402 - not a package of the project
import slim  # noqa: E402

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def stages() -> dict[str, str]:
    """The text of each stage by its name."""
    parts = re.split(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, flags=re.MULTILINE)[1:]
    return {parts[at + 1]: f"{parts[at]}\n{parts[at + 2]}" for at in range(0, len(parts), 3)}


def test_every_image_runs_as_an_unprivileged_user_and_brings_no_installer():
    for name in ("serve", "serve-gpu", "train"):
        based_on, _, text = stages()[name].partition("\n")
        assert based_on == "runtime"
        assert text.split() == ["COPY", f"--from={name}-packages", "/opt/mlaas", "/opt/mlaas"]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", stages()["runtime"], flags=re.MULTILINE)


def test_every_extra_that_is_installed_exists():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = re.findall(r'install\.py", "([a-z,]+)"', DOCKERFILE)
    assert len(asked) == 3
    assert {extra for one in asked for extra in one.split(",")} <= extras.keys()


def test_no_shell_form_is_used():
    assert all(line.split(" ", 1)[1].startswith("[") for line in DOCKERFILE.splitlines() if line.startswith(("RUN", "CMD", "ENTRYPOINT")))


def test_what_is_sent_to_the_builder_is_named():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    copied = {
        source.split("/")[0]
        for line in DOCKERFILE.splitlines()
        if line.startswith("COPY") and "--from" not in line
        for source in line.split()[1:-1]
    }
    assert copied <= {line.removeprefix("!") for line in ignored if line.startswith("!")}


def test_a_serving_image_loses_the_tools_of_training_and_a_training_image_does_not(tmp_path):
    def packages(name):
        for file in (
            "onnxruntime/quantization/q.py",
            "onnxruntime/capi/keep.so",
            "pyarrow/libarrow_flight.so.1",
            "pyarrow/lib.so",
            "pyarrow/lib.pyx",
        ):
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / name

    for name, serving in (("serve", True), ("train", False)):
        slim.slim(packages(name), serving=serving)
    left = {
        name: {str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*") if path.is_file()}
        for name in ("serve", "train")
    }
    assert left["serve"] == {"onnxruntime/capi/keep.so", "pyarrow/lib.so"}
    assert left["train"] == left["serve"] | {"onnxruntime/quantization/q.py"}


def test_the_first_builder_that_works_is_used_and_none_is_an_error_with_a_remedy(tmp_path, monkeypatch):
    for name, status in (("docker", 1), ("podman", 0)):  # docker's command is there, its daemon is not
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [tool for tool in build.TOOLS if build.works(tool)] == ["podman"]
    (tmp_path / "podman").unlink()
    monkeypatch.setattr(sys, "argv", ["build.py"])
    with pytest.raises(SystemExit, match="apt-get install buildah"):
        build.main()
