"""The YAML under `eventing/`, as what the single-machine runner acts on.

What would change which events are delivered, where, or how often, and is not understood, is refused; images, resources,
probes, accounts and what guards pods mean nothing on one machine and are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InvalidRequest

__all__ = ["BadManifest", "Manifests", "Route", "Workload", "load", "matches", "seconds"]

_FIELDS = {  # the kinds that there are, and what is understood of their `spec`
    "Broker": "config delivery",
    "Trigger": "broker filter filters subscriber delivery",
    "KafkaSource": "bootstrapServers topics consumerGroup initialOffset ordering sink delivery",
    "KafkaSink": "bootstrapServers topic contentMode",
    "JobSink": "job",
    "Service": "template",
    "Deployment": "replicas selector template",
    "SinkBinding": "subject sink",  # says where the Broker is, which the runner tells every process
}
_PASSED_OVER = ("ConfigMap", "NetworkPolicy", "PodDisruptionBudget", "ServiceAccount")  # settings are those of this process


class BadManifest(InvalidRequest):
    """A file under eventing/ says something that the single-machine runner does not understand."""


@dataclass(frozen=True)
class Route:
    """A Trigger or a KafkaSource: events of `topics` that pass its `filters` go to the resource `target` of that `kind`.

    A delivery is tried again `retry` times, after `delay` seconds and more, and then goes to the KafkaSink `dead_letters`.
    """

    name: str
    group: str
    topics: tuple[str, ...]
    filters: tuple[Mapping[str, Any], ...]
    kind: str
    target: str
    ordered: bool = False
    retry: int = 0
    exponential: bool = True
    delay: float = 0.2
    timeout: float = 300.0
    dead_letters: str = ""

    def accepts(self, event: Mapping[str, str]) -> bool:
        """Whether an event with these attributes is wanted."""
        return all(matches(one, event) for one in self.filters)


@dataclass(frozen=True)
class Workload:
    """A process of a Service, a Deployment or a JobSink. `retention` is how many idle seconds it stays, None for always."""

    command: tuple[str, ...]
    env: Mapping[str, str]
    concurrency: int = 10
    retention: float | None = None
    backoff_limit: int = 6
    deadline: float = float("inf")


@dataclass
class Manifests:
    """What is wired: the Broker's topic and its triggers' usual delivery, and by name all else (of a KafkaSink its topic)."""

    broker_topic: str = ""
    usual: Mapping[str, Any] = field(default_factory=dict)
    routes: dict[str, Route] = field(default_factory=dict)
    sinks: dict[str, str] = field(default_factory=dict)
    services: dict[str, Workload] = field(default_factory=dict)
    deployments: dict[str, Workload] = field(default_factory=dict)
    jobs: dict[str, Workload] = field(default_factory=dict)


def load(folder: Path) -> Manifests:
    """Everything that the kustomization in `folder` lists. Raises BadManifest saying where and what."""
    where, wired, seen = folder.name, Manifests(), set[tuple[str, str]]()
    try:
        for file, resource in sorted(_resources(folder), key=lambda one: str(one[1]["kind"]) != "Broker"):  # others refer to it
            kind, name = resource["kind"], resource["metadata"]["name"]
            where = f"{file}: {kind} {name}"
            if kind in _PASSED_OVER:
                continue
            _only({kind: resource}, " ".join(_FIELDS))
            _only(resource["spec"], _FIELDS[kind])
            if (kind, name) in seen or (kind == "Broker" and wired.broker_topic):
                raise ValueError("there is another one")
            seen.add((kind, name))
            _add(wired, kind, name, resource["spec"], resource["metadata"].get("annotations", {}))
        where = folder.name
        for route in wired.routes.values():
            for kind, name in ((route.kind, route.target), ("KafkaSink", route.dead_letters)):
                if (kind, name) not in seen:
                    raise ValueError(f"{route.name} names the {kind} {name}, which does not exist")
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        detail = f"{where}: {error}" if type(error) is ValueError else f"{where} is not as Knative has it: {error!r}"
        raise BadManifest(detail, remedy="Change the file, or run it on a cluster with Knative.") from None
    return wired


def seconds(text: str) -> float:
    """Seconds of an ISO 8601 duration (`PT0.5S`) or of Go's (`1m30s`). Raises ValueError."""
    found = re.fullmatch(r"(?:PT)?(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?", text, re.IGNORECASE)
    if not found or not any(found.groups()):
        raise ValueError(f"{text!r} must be a duration such as PT0.5S or 60s")
    return sum(float(part or 0) * unit for part, unit in zip(found.groups(), (3600, 60, 1), strict=True))


def _resources(folder: Path) -> Iterator[tuple[str, Any]]:
    import yaml  # optional: only the single-machine runner reads YAML

    try:
        kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
        _only(kustomization, "apiVersion kind resources labels images namespace")
        for name in kustomization["resources"]:
            yield from ((name, document) for document in yaml.safe_load_all((folder / name).read_text()) if document)
    except yaml.YAMLError as error:
        raise ValueError(f"this is no YAML: {error}") from None


def _only(given: Mapping[str, Any], understood: str) -> None:
    if unknown := sorted(set(given) - set(understood.split())):
        raise ValueError(f"{unknown[0]} is not understood by the single-machine runner")


def _add(wired: Manifests, kind: str, name: str, spec: Mapping[str, Any], notes: Mapping[str, str]) -> None:
    match kind:
        case "Broker":
            wired.broker_topic, wired.usual = f"knative-broker-{name}", spec.get("delivery", {})
        case "Trigger":
            topic, target = f"knative-broker-{spec['broker']}", spec["subscriber"]["ref"]
            if topic != wired.broker_topic or target["kind"] not in ("Service", "JobSink", "KafkaSink"):
                raise ValueError("it names another Broker, or a subscriber that is not understood by the single-machine runner")
            ordered = notes.get("kafka.eventing.knative.dev/delivery.order") == "ordered"
            # Where both are given, Knative takes `filters`; an empty attribute in the older `filter` accepts everything.
            older = {attribute: text for attribute, text in spec.get("filter", {}).get("attributes", {}).items() if text}
            filters = (*spec.get("filters", []),) or ({"exact": older},)
            matches({"all": filters}, {})  # raises if there is one that is not understood
            group, delivery = f"knative-trigger-{name}", _delivery(spec, wired.usual)
            wired.routes[name] = Route(name, group, (topic,), filters, target["kind"], target["name"], ordered, **delivery)
        case "KafkaSource":
            target, delivery, name = spec["sink"]["ref"]["name"], _delivery(spec, wired.usual), f"source-{name}"
            wired.routes[name] = Route(name, spec["consumerGroup"], tuple(spec["topics"]), (), "Broker", target, True, **delivery)
        case "KafkaSink":
            if spec.get("contentMode", "binary") != "binary":
                raise ValueError("its contentMode is not understood by the single-machine runner")
            wired.sinks[name] = spec["topic"]
        case "JobSink":
            job = spec["job"]["spec"]
            limit, deadline = job.get("backoffLimit", 6), float(job.get("activeDeadlineSeconds", "inf"))
            wired.jobs[name] = _workload(job["template"], backoff_limit=limit, deadline=deadline)
        case "Service":
            notes = spec["template"].get("metadata", {}).get("annotations", {})
            idle = seconds(notes.get("autoscaling.knative.dev/scale-to-zero-pod-retention-period", "60s"))
            concurrency = spec["template"]["spec"].get("containerConcurrency") or 10
            wired.services[name] = _workload(spec["template"], concurrency=concurrency, retention=idle)
        case "Deployment":
            wired.deployments[name] = _workload(spec["template"])


def _workload(template: Mapping[str, Any], **limits: Any) -> Workload:
    (one,) = template["spec"]["containers"]
    env = {entry["name"]: str(entry["value"]) for entry in one.get("env", []) if "value" in entry}
    return Workload((*one["command"], *one.get("args", [])), env, **limits)


def _delivery(spec: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """Own delivery stands instead of the Broker's, except for the dead letters."""
    given = spec.get("delivery", usual)
    _only(given, "retry backoffPolicy backoffDelay timeout deadLetterSink")
    letters = given.get("deadLetterSink") or usual.get("deadLetterSink")
    return {
        "retry": given.get("retry", 0),
        "exponential": given.get("backoffPolicy", "exponential") == "exponential",
        "delay": seconds(given.get("backoffDelay", "PT0.2S")),
        "timeout": seconds(given.get("timeout", "PT300S")),
        "dead_letters": letters["ref"]["name"] if letters else "(none)",
    }


def matches(spec: Mapping[str, Any], event: Mapping[str, str]) -> bool:
    """Whether a filter of CloudEvents' subscriptions API accepts the event. Raises ValueError for one that is not understood."""
    if len(spec) != 1:
        raise ValueError("a filter needs exactly one dialect")
    ((dialect, value),) = spec.items()
    match dialect:
        case "not":
            return not matches(value, event)
        case "all" | "any":
            found = [matches(one, event) for one in value]
            return all(found) if dialect == "all" else any(found)
        case "exact":
            return all(event.get(name) == text for name, text in value.items())
        case "prefix" | "suffix":
            test = str.startswith if dialect == "prefix" else str.endswith
            return all(test(event.get(name, ""), text) for name, text in value.items())
    raise ValueError(f"the filter {dialect} is not understood by the single-machine runner")
