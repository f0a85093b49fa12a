"""A training over several pods by Kubeflow's Trainer: a TrainJob on the TrainingRuntime of `eventing/components/trainer`."""

from __future__ import annotations

from typing import Any

from .pod import EVENT_FOLDER, Wanted, event_environment, event_map, event_volume

__all__ = ["RUNTIME", "train_job"]

RUNTIME = "mlaas-torch"
_NODE = "node"  # what Trainer's runtimes for torch call the replicated Job and its container


def train_job(wanted: Wanted, spec: dict[str, Any], event: str) -> list[dict[str, Any]]:
    """The event and the TrainJob of `wanted.ranks` nodes, from the `spec` of a training's Job. `event` is the accepted one, as JSON.

    A TrainJob can say neither where settings and secrets come from nor that a pod is not root: the runtime does.
    """
    (container,) = spec["template"]["spec"]["containers"]
    trainer = {
        "image": wanted.image,
        "command": ["python", "-m", "torch.distributed.run", "-m", "mlaas.training.job"],
        "numNodes": wanted.ranks,
        "numProcPerNode": wanted.gpus or 1,
        "resourcesPerNode": container["resources"],
        "env": event_environment(),
    }
    mounts = {"name": _NODE, "volumeMounts": [{"name": "event", "mountPath": EVENT_FOLDER, "readOnly": True}]}
    override = {"targetJobs": [{"name": _NODE}], "spec": {"containers": [mounts], "volumes": [event_volume(wanted)]}}
    resource = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": wanted.metadata(component="rank"),
        "spec": {
            "runtimeRef": {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": RUNTIME},
            "trainer": trainer,
            "podTemplateOverrides": [override],
        },
    }
    return [event_map(wanted, event), resource]
