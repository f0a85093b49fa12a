"""Writes `eventing/schemas`: JSON schemas of the resources that this project makes, from what their projects release.

`python -m mlaas.testing.crd_schemas eventing/schemas` needs Go, whose module proxy has the releases. What a schema says for
people, and the status, are left out; what Kubernetes prunes silently (a field that is not in the schema) is refused here. Rules in CEL
and what webhooks refuse are beyond JSON Schema: the API server's dry run knows them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["RELEASES", "Release", "from_crd", "from_openapi", "main"]

_KEPT = ("type", "required", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "minProperties")
_OPENAPI = "#/components/schemas/"


@dataclass(frozen=True)
class Release:
    """A Go module and its version, and its files: CRDs in YAML with the versions that are taken, or OpenAPI v3 with the kinds.

    `group` is the API group of kinds whose OpenAPI does not name it.
    """

    module: str
    version: str
    files: Mapping[str, tuple[str, ...]]
    group: str = ""


RELEASES = (
    Release("knative.dev/serving", "v0.44.0", {"config/core/300-resources/service.yaml": ("v1",)}),
    Release(
        "knative.dev/eventing",
        "v0.44.0",
        {
            "config/core/resources/broker.yaml": ("v1",),
            "config/core/resources/trigger.yaml": ("v1",),
            "config/core/resources/sinkbindings.yaml": ("v1",),
            "config/core/resources/eventpolicy.yaml": ("v1alpha1",),
            "config/core/resources/jobsink.yaml": ("v1alpha1",),
        },
    ),
    # Katib's CRD takes everything; its OpenAPI says what its controller reads.
    Release("github.com/kubeflow/katib", "v0.19.0", {"api/openapi-spec/swagger.json": ("Experiment",)}, group="kubeflow.org"),
    Release(
        "github.com/kubeflow/trainer/v2",
        "v2.1.0",
        {f"manifests/base/crds/trainer.kubeflow.org_{kind}.yaml": ("v1alpha1",) for kind in ("trainingruntimes", "trainjobs")},
    ),
    Release(
        "sigs.k8s.io/kueue",
        "v0.14.0",
        {
            f"config/components/crd/bases/kueue.x-k8s.io_{kind}.yaml": ("v1beta1",)
            for kind in ("clusterqueues", "localqueues", "resourceflavors")
        },
    ),
    Release("github.com/kedacore/keda/v2", "v2.18.0", {"config/crd/bases/keda.sh_scaledobjects.yaml": ("v1alpha1",)}),
    Release(
        "github.com/prometheus-operator/prometheus-operator",
        "v0.85.0",
        {f"example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml": ("v1",) for kind in ("podmonitors", "prometheusrules")},
    ),
    Release(
        "k8s.io/kubernetes",
        "v1.34.4",
        {
            "api/openapi-spec/v3/api__v1_openapi.json": ("ConfigMap", "Namespace", "Secret", "Service", "ServiceAccount"),
            "api/openapi-spec/v3/apis__apps__v1_openapi.json": ("Deployment",),
            "api/openapi-spec/v3/apis__batch__v1_openapi.json": ("Job",),
            "api/openapi-spec/v3/apis__networking.k8s.io__v1_openapi.json": ("NetworkPolicy",),
            "api/openapi-spec/v3/apis__policy__v1_openapi.json": ("PodDisruptionBudget",),
        },
    ),
)


def from_crd(definition: Mapping[str, Any], version: str) -> tuple[str, dict[str, Any]]:
    """The name of the file and the schema of one version of a CustomResourceDefinition."""
    group, kind = definition["spec"]["group"], definition["spec"]["names"]["kind"]
    (found,) = (one for one in definition["spec"]["versions"] if one["name"] == version)
    return _resource(kind, group, version, _trimmed(found["schema"]["openAPIV3Schema"]))


def from_openapi(document: Mapping[str, Any], kind: str, group: str = "") -> tuple[str, dict[str, Any]]:
    """The name of the file and the schema of one kind of a document of OpenAPI v3; `group` where the document names none."""
    schemas = document["components"]["schemas"]
    (name,) = (name for name in schemas if name.endswith(f".{kind}") and _is_resource(schemas[name]))
    (known,) = schemas[name].get("x-kubernetes-group-version-kind", [{"group": group, "version": name.split(".")[-2]}])
    file, own = _resource(kind, known["group"], known["version"], _trimmed(schemas[name]))
    definitions, wanted = dict[str, Any](), [*_referred(own)]
    while wanted:
        if (one := wanted.pop()) not in definitions:
            definitions[one] = _trimmed(schemas[one], top=False)
            wanted += _referred(definitions[one])
    return file, {**own, **({"$defs": definitions} if definitions else {})}


def _is_resource(schema: Mapping[str, Any]) -> bool:
    return {"apiVersion", "kind", "metadata"} <= set(schema.get("properties", ()))


def _resource(kind: str, group: str, version: str, schema: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    api = f"{group}/{version}" if group else version
    # A resource's own name and labels are the API server's to judge; so CRDs and Kubernetes' own kinds are treated alike.
    properties = {**schema.get("properties", {}), "apiVersion": {"enum": [api]}, "kind": {"enum": [kind]}, "metadata": _METADATA}
    properties.pop("status", None)
    top = {**schema, "properties": properties, "required": ["apiVersion", "kind", "metadata"], "additionalProperties": False}
    return f"{kind.lower()}_{group}_{version}.json", top


_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_METADATA = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"},
        "namespace": {"type": "string"},
        "labels": _TEXTS,
        "annotations": _TEXTS,
    },
}


def _trimmed(schema: Mapping[str, Any], *, top: bool = True) -> dict[str, Any]:
    """What a validator needs of a schema of OpenAPI, as JSON Schema, and closed against unknown fields."""
    if "$ref" in schema:
        return {"$ref": f"#/$defs/{schema['$ref'].removeprefix(_OPENAPI)}"}
    if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
        return {"type": ["integer", "string"]}
    kept: dict[str, Any] = {name: schema[name] for name in _KEPT if name in schema}
    for name in ("allOf", "anyOf", "oneOf"):
        if name in schema:
            kept[name] = [_trimmed(one) for one in schema[name]]
    if "items" in schema:
        kept["items"] = _trimmed(schema["items"])
    if "properties" in schema:
        kept["properties"] = {name: _trimmed(one) for name, one in schema["properties"].items() if not (top and name == "status")}
        if "type" in schema and "additionalProperties" not in schema:  # Knative's CRDs leave it open, and its webhooks do not
            kept["additionalProperties"] = False
    if isinstance(schema.get("additionalProperties"), dict):
        kept["additionalProperties"] = _trimmed(schema["additionalProperties"])
    return kept


def _referred(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"].removeprefix("#/$defs/")
        for one in schema.values():
            yield from _referred(one)
    elif isinstance(schema, list):
        for one in schema:
            yield from _referred(one)


def _source(release: Release) -> Path:
    command = ["go", "mod", "download", "-json", f"{release.module}@{release.version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - constants
    return Path(json.loads(done.stdout)["Dir"])


def _schemas(release: Release) -> Iterator[tuple[str, dict[str, Any]]]:
    import yaml

    folder = _source(release)
    for file, taken in release.files.items():
        text = (folder / file).read_text()
        document = json.loads(text) if file.endswith(".json") else yaml.safe_load(text)
        for one in taken:
            name, schema = from_openapi(document, one, release.group) if file.endswith(".json") else from_crd(document, one)
            origin = f"{release.module}@{release.version} {file}, Apache License 2.0"
            yield name, {"$comment": f"From {origin}; made by mlaas.testing.crd_schemas.", **schema}


def main(arguments: list[str]) -> None:
    """Write each schema into the folder that is named."""
    found = {name: schema for release in RELEASES for name, schema in _schemas(release)}
    job = found["job_batch_v1.json"]  # what a JobSink holds is open in its own schema, and refused later by its webhook
    sink = found["jobsink_sinks.knative.dev_v1alpha1.json"]
    held = {**job["properties"], "metadata": {**_METADATA, "required": []}}
    sink["properties"]["spec"]["properties"]["job"] = {"type": "object", "properties": held, "additionalProperties": False}
    sink["$defs"] = job["$defs"]
    for name, schema in found.items():
        (Path(arguments[0]) / name).write_text(json.dumps(schema, separators=(",", ":"), sort_keys=True) + "\n")
    print(f"{len(found)} schemas are in {arguments[0]}")


if __name__ == "__main__":
    main(sys.argv[1:])
