"""Holds what `eventing/` makes against the schemas of its kinds: `python -m mlaas.testing.manifest_check eventing`.

With kubectl each overlay, and each component upon the base, is checked as kustomize renders it, and without it each file by itself. Where
KUBECONFIG names a cluster on this machine, its API server is asked too (a dry run), about the kinds that it has.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .cluster import unusable

__all__ = ["components", "files", "main", "overlays", "problems", "rendered"]

_NOT_HERE = ("no matches for kind", "feature not enabled")  # what a cluster lacks is no fault of the manifest
_SCHEMAS = Path(__file__).parents[3] / "eventing" / "schemas"


def problems(resource: Mapping[str, Any], schemas: Path = _SCHEMAS) -> list[str]:
    """What is wrong with a resource, each as `KIND NAME: where: what`; nothing if it is as its schema says."""
    from jsonschema import Draft202012Validator

    kind, api = str(resource.get("kind")), str(resource.get("apiVersion"))
    name = f"{kind} {resource.get('metadata', {}).get('name')}"
    group, _, version = api.rpartition("/")
    file = schemas / f"{kind.lower()}_{group}_{version}.json"
    if not file.is_file():
        return [f"{name}: there is no schema for {kind} of {api}"]
    found = Draft202012Validator(json.loads(file.read_text())).iter_errors(dict(resource))
    return [f"{name}: {error.json_path.removeprefix('$.')}: {error.message[:300]}" for error in found]


def overlays(eventing: Path) -> list[Path]:
    """The base, and each overlay."""
    return [eventing / "base", *sorted(path.parent for path in eventing.glob("overlays/*/kustomization.yaml"))]


def components(eventing: Path) -> list[Path]:
    """Each component."""
    return sorted(path.parent for path in eventing.glob("components/*/kustomization.yaml"))


def rendered(folder: Path) -> list[dict[str, Any]]:
    """The resources of an overlay, or of the base with a component, as kustomize has them. Raises ValueError with what it says."""
    if folder.parent.name != "components":
        return _kustomize(folder)
    with tempfile.TemporaryDirectory() as temporary:
        made = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(folder.parents[1] / "base", os.path.realpath(temporary))],
            "components": [os.path.relpath(folder, os.path.realpath(temporary))],
        }
        (Path(temporary) / "kustomization.yaml").write_text(json.dumps(made))
        return _kustomize(Path(temporary))


def _kustomize(folder: Path) -> list[dict[str, Any]]:
    import yaml

    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if done.returncode:
        raise ValueError(done.stderr.strip()[-1000:])
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def files(eventing: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each file that holds a whole resource, and the resource: no patch and no kustomization."""
    import yaml

    for file in sorted(path for part in ("base", "components", "overlays") for path in (eventing / part).rglob("*.yaml")):
        if file.name != "kustomization.yaml" and not file.name.endswith(".patch.yaml"):
            yield from ((file, one) for one in yaml.safe_load_all(file.read_text()) if one)


@dataclass
class _Server:
    """What an API server says to a dry run; each resource is asked about once, however many overlays have it."""

    said: dict[str, str] = field(default_factory=dict)

    def ask(self, resource: Mapping[str, Any]) -> str:
        """Nothing, or why it is refused. In `default`, since the namespace need not be there."""
        text = json.dumps({**resource, "metadata": {**resource["metadata"], "namespace": "default"}}, sort_keys=True)
        if text not in self.said:
            command = ["kubectl", "apply", "--dry-run=server", "--validate=strict", "-f", "-"]
            done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)  # noqa: S603
            self.said[text] = done.stderr.strip()[-500:] if done.returncode else ""
        return self.said[text]


def _check(eventing: Path, server: _Server | None) -> Iterator[str]:
    """Each problem; a line for each folder is printed meanwhile."""
    for folder in (*overlays(eventing), *components(eventing)):
        try:
            resources = rendered(folder)
        except ValueError as error:
            yield f"{folder}: {error}"
            continue
        yield from (f"{folder}: {one}" for resource in resources for one in problems(resource))
        absent = set[str]()
        for one in resources if server else ():
            if (said := server.ask(one) if server else "") and any(reason in said for reason in _NOT_HERE):
                absent.add(f"{one['kind']} of {one['apiVersion']}")
            elif said:
                yield f"{folder}: {one['kind']} {one['metadata']['name']}: {said}"
        not_here = f"; not on this cluster: {', '.join(sorted(absent))}" if absent else ""
        print(f"{folder}: {len(resources)} resources{not_here}")


def main(arguments: list[str]) -> int:
    """Check the folder that is named; the process' exit status."""
    eventing = Path(arguments[0])
    if shutil.which("kubectl"):
        reason = unusable(os.environ.get("KUBECONFIG"))
        found = list(_check(eventing, None if reason else _Server()))
        print(f"no API server was asked: {reason}" if reason else "the API server was asked")
    else:
        each = list(files(eventing))
        found = [f"{file}: {one}" for file, resource in each for one in problems(resource)]
        print(f"{eventing}: {len(each)} resources, each file by itself: kubectl, which renders overlays, is not installed")
    for one in found:
        print(one, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
