"""The Dockerfile and what builds it, as far as it goes without a builder; `make images` is the rest."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "images"))
import build  # noqa: E402 - not a package of the project
import sbom  # noqa: E402
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
        assert text.split() == [
            word for stage in (f"{name}-packages", "own") for word in ("COPY", f"--from={stage}", "/opt/mlaas", "/opt/mlaas")
        ]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", stages()["runtime"], flags=re.MULTILINE)


def test_every_extra_that_is_installed_exists():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = re.findall(r'install\.py", "packages", "([a-z,]+)"', DOCKERFILE)
    assert len(asked) == 3
    assert {extra for one in asked for extra in one.split(",")} <= extras.keys()


def test_no_layer_of_packages_depends_on_the_platforms_own_code():
    copied = [line for name in ("build", "serve-packages", "train-packages", "serve-gpu-packages") for line in stages()[name].splitlines()]
    assert [line for line in copied if line.startswith("COPY shared")] == ["COPY shared/mlaas/__init__.py shared/mlaas/"]


def test_no_shell_form_is_used():
    assert all(line.split(" ", 1)[1].startswith("[") for line in DOCKERFILE.splitlines() if line.startswith(("RUN", "CMD", "ENTRYPOINT")))


def test_what_is_sent_to_the_builder_is_named():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    named = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    copies = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY") and "--from" not in line]
    for source in (source for sources in copies for source in sources):
        assert any(source == name or source.startswith(f"{name}/") for name in named), source


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


def test_only_the_images_that_are_made_for_it_have_models_in_them():
    having = {name for name, text in stages().items() if "build/models" in text}
    assert having == {"serve-models", "models"}
    assert "MLAAS_STAGED=/models" in stages()["serve-models"]
    assert set(build.TARGETS) <= stages().keys()


def test_an_image_of_models_is_not_built_without_one(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "ROOT", tmp_path)
    assert build.models("serve") == []
    with pytest.raises(SystemExit, match="mlaas catalog stage"):
        build.models("serve-models")
    (tmp_path / "build" / "models" / "0123456789abcdef").mkdir(parents=True)
    (tmp_path / "build" / "models" / "0123456789abcdef" / "manifest.json").touch()
    assert build.models("serve-models") == ["0123456789abcdef"]


def test_the_packages_of_the_base_are_listed_and_removed_ones_are_not():
    status = (
        "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9+deb12u10\nDescription: GNU C\n more: words\n\n"
    )
    status += "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n\n"
    status += "Package: epoch\nStatus: install ok installed\nArchitecture: all\nVersion: 1:2.0\n"
    purls = [one["purl"] for one in sbom.debian_packages(status)]
    assert purls == ["pkg:deb/debian/libc6@2.36-9+deb12u10?arch=amd64", "pkg:deb/debian/epoch@1%3A2.0?arch=all"]


def test_everything_that_is_asked_for_by_name_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = set(project["build-system"]["requires"]) | set(project["project"]["dependencies"]) | {"cyclonedx-bom"}
    for extra in ("cpu", "gpu", "tracing", "train"):
        asked |= set(project["project"]["optional-dependencies"][extra])
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {re.split(r"[<>=\[]", name)[0] for name in asked} <= pinned
