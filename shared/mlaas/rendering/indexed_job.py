"""A training over several pods without Kubeflow's Trainer: an Indexed Job, and a headless Service by which its ranks meet."""

from __future__ import annotations

from typing import Any

from .pod import Wanted, event_map, labels, mount

__all__ = ["PORT", "indexed_job"]

PORT = 29500  # torchrun's own default
_INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"


def indexed_job(wanted: Wanted, spec: dict[str, Any], event: str) -> list[dict[str, Any]]:
    """The event, the Service and the Job of `wanted.ranks` pods, from the `spec` of a training's Job. `event` is JSON, the accepted one."""
    template = spec["template"]
    template["metadata"]["labels"] = labels(component="rank")
    pod = template["spec"]
    mount(pod, wanted)
    pod["subdomain"] = wanted.name
    (container,) = pod["containers"]
    container["env"] += [
        {"name": "RANK", "valueFrom": {"fieldRef": {"fieldPath": _INDEX}}},
        {"name": "WORLD_SIZE", "value": str(wanted.ranks)},
        {"name": "MASTER_ADDR", "value": f"{wanted.name}-0.{wanted.name}"},
        {"name": "MASTER_PORT", "value": str(PORT)},
    ]
    ranks = {"completionMode": "Indexed", "completions": wanted.ranks, "parallelism": wanted.ranks}
    # When one rank is lost, all end and are started again: each of them counts.
    job = {**spec, **ranks, "backoffLimit": spec["backoffLimit"] * wanted.ranks}
    resource = {"apiVersion": "batch/v1", "kind": "Job", "metadata": wanted.metadata(component="rank"), "spec": job}
    return [event_map(wanted, event), _service(wanted), resource]


def _service(wanted: Wanted) -> dict[str, Any]:
    """Names for the pods, also before they are ready: they become so only together."""
    metadata = {"name": wanted.name, "namespace": wanted.namespace, "labels": labels(component="rank")}
    selector = {"batch.kubernetes.io/job-name": wanted.name}
    spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": selector, "ports": [{"name": "ranks", "port": PORT}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
