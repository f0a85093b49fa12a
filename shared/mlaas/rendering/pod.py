"""The Job of a training as `eventing/` has it, and what every rendering changes in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidRequest

__all__ = ["MANIFEST", "Wanted", "event_map", "labels", "mount", "training_job"]

MANIFEST = Path(__file__).parents[3] / "eventing" / "base" / "train.jobsink.yaml"
EVENT_FOLDER = "/etc/mlaas-event"
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,48}[a-z0-9])?")  # a name of a Service, with room for what controllers append
_QUEUE = "kueue.x-k8s.io/queue-name"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How the resources are called and where they run. `ranks` are the pods of one training; `gpus` each of them has.

    Raises InvalidRequest for a name that Kubernetes would refuse.
    """

    name: str
    namespace: str = "mlaas"
    image: str = "mlaas-train"
    queue: str | None = None
    ranks: int = 1
    gpus: int = 0

    def __post_init__(self) -> None:
        for field, name in (("name", self.name), ("namespace", self.namespace), ("queue", self.queue or "none")):
            if not _NAME.fullmatch(name):
                remedy = "Use 1 to 50 lower-case letters, digits and hyphens, beginning with a letter."
                raise InvalidRequest("Kubernetes takes no such name", field=f"--{field}", remedy=remedy)

    def metadata(self, **more: str) -> dict[str, Any]:
        """The metadata of a resource that is queued by Kueue if there is a queue."""
        return {"name": self.name, "namespace": self.namespace, "labels": labels(**more) | ({_QUEUE: self.queue} if self.queue else {})}


def labels(**more: str) -> dict[str, str]:
    """The platform's label, by which the SinkBinding of Jobs finds them, and others of Kubernetes' recommended ones."""
    return {"app.kubernetes.io/part-of": "mlaas", **{f"app.kubernetes.io/{name}": value for name, value in more.items()}}


def training_job(wanted: Wanted, manifest: Path = MANIFEST) -> dict[str, Any]:
    """The `spec` of the Job that a training is, for `wanted`'s image and GPUs. Raises InvalidRequest if the manifest has none."""
    import yaml  # optional: only the machine that renders reads YAML

    try:
        spec: dict[str, Any] = yaml.safe_load(manifest.read_text())["spec"]["job"]["spec"]
        (container,) = spec["template"]["spec"]["containers"]
        container["image"] = wanted.image
        if wanted.gpus:
            container["resources"]["limits"]["nvidia.com/gpu"] = str(wanted.gpus)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        remedy = "Name the file eventing/base/train.jobsink.yaml of the project, or a JobSink like it."
        raise InvalidRequest("this is no JobSink of a training", field="--manifest", remedy=remedy) from None
    return spec


def event_map(wanted: Wanted, event: str) -> dict[str, Any]:
    """The ConfigMap with `event`, a text, in the file `event`: what a JobSink keeps in a Secret. It refers to data and holds none."""
    metadata = {"name": wanted.name, "namespace": wanted.namespace, "labels": labels()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "immutable": True, "data": {"event": event}}


def mount(pod: dict[str, Any], wanted: Wanted) -> None:
    """Let the pod's container read the event of `event_map`, as that of a JobSink does."""
    (container,) = pod["containers"]
    container["env"] += event_environment()
    container["volumeMounts"].append({"name": "event", "mountPath": EVENT_FOLDER, "readOnly": True})
    pod["volumes"].append(event_volume(wanted))


def event_environment() -> list[Mapping[str, str]]:
    """JobSink's contract with a job."""
    return [{"name": "K_EVENT_PATH", "value": EVENT_FOLDER}, {"name": "K_EXECUTION_MODE", "value": "batch"}]


def event_volume(wanted: Wanted) -> dict[str, Any]:
    """The volume of `event_map`."""
    return {"name": "event", "configMap": {"name": wanted.name}}
