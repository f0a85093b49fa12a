"""The YAML under `eventing/` as frozen dataclasses: what the single-machine runner acts on.

Knative's schema, as far as the platform uses it. What it does not understand it refuses when leaving it out would change
which events are delivered, where, or how often; images, resources and probes mean nothing here and are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InvalidRequest

__all__ = ["BadManifest", "Delivery", "Job", "Manifests", "Sink", "Source", "Trigger", "Workload", "load", "seconds"]

Filter = Callable[[Mapping[str, str]], bool]
Json = Mapping[str, Any]
_GROUPS = {
    "Broker": "eventing.knative.dev",
    "Trigger": "eventing.knative.dev",
    "KafkaSink": "eventing.knative.dev",
    "KafkaSource": "sources.knative.dev",
    "SinkBinding": "sources.knative.dev",
    "JobSink": "sinks.knative.dev",
    "Service": "serving.knative.dev",
    "Deployment": "apps",
}
_ORDER = "kafka.eventing.knative.dev/delivery.order"
_RETENTION = "autoscaling.knative.dev/scale-to-zero-pod-retention-period"


class BadManifest(InvalidRequest):
    """A file under eventing/ says something that the single-machine runner does not understand."""


@dataclass(frozen=True)
class Delivery:
    """How often a delivery is tried, how long between the tries (seconds), and which KafkaSink gets what cannot be delivered."""

    retry: int = 0
    exponential: bool = True
    delay: float = 0.2
    timeout: float = 300.0
    retry_after_max: float = 30.0
    dead_letters: str | None = None

    def backoff(self, attempt: int) -> float:
        """Seconds to wait after the failed `attempt`, counted from 0."""
        return self.delay * (2**attempt if self.exponential else attempt + 1)


@dataclass(frozen=True)
class Trigger:
    """Events that `matches` accepts go to the `subscriber` of that `kind`; `ordered` keeps those of one key in order."""

    name: str
    matches: Filter
    kind: str
    subscriber: str
    delivery: Delivery
    ordered: bool = False


@dataclass(frozen=True)
class Source:
    """A KafkaSource: records of `topics` go to the Broker."""

    name: str
    topics: tuple[str, ...]
    group: str


@dataclass(frozen=True)
class Sink:
    """A KafkaSink: events sent to it are records of `topic`."""

    name: str
    topic: str
    structured: bool = False


@dataclass(frozen=True)
class Workload:
    """A process that serves: `retention` is how many idle seconds it stays, None for always; `concurrency` its requests at once."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    concurrency: int = 10
    retention: float | None = None


@dataclass(frozen=True)
class Job:
    """A JobSink: each event is a run of `command`, tried again `backoff_limit` times within `deadline` seconds."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    backoff_limit: int = 6
    deadline: float | None = None


@dataclass(frozen=True)
class Manifests:
    """Everything that is wired, by name."""

    broker: str
    triggers: Mapping[str, Trigger] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)
    sinks: Mapping[str, Sink] = field(default_factory=dict)
    services: Mapping[str, Workload] = field(default_factory=dict)
    deployments: Mapping[str, Workload] = field(default_factory=dict)
    jobs: Mapping[str, Job] = field(default_factory=dict)

    @property
    def broker_topic(self) -> str:
        """The topic in which the Broker keeps its events."""
        return f"knative-broker-{self.broker}"


def load(folder: Path) -> Manifests:
    """Everything that the kustomization in `folder` lists. Raises BadManifest naming file, resource and field."""
    found: dict[str, dict[str, _Resource]] = {kind: {} for kind in _GROUPS}
    for path in _listed(folder):
        for document in _documents(path):
            resource = _Resource.of(path, document)
            if resource.name in found[resource.kind]:
                raise resource.bad("metadata.name", "is taken by another resource of this kind")
            found[resource.kind][resource.name] = resource
    if len(found["Broker"]) != 1:
        raise BadManifest(f"{folder.name} has {len(found['Broker'])} Brokers, the single-machine runner needs one", field="Broker")
    ((name, broker),) = found["Broker"].items()
    delivery = broker.delivery(broker.only("spec", {"config", "delivery"}).get("delivery"), Delivery())
    manifests = Manifests(
        broker=name,
        triggers={n: _trigger(r, name, delivery) for n, r in found["Trigger"].items()},
        sources={n: _source(r, name) for n, r in found["KafkaSource"].items()},
        sinks={n: _sink(r) for n, r in found["KafkaSink"].items()},
        services={n: _service(r) for n, r in found["Service"].items()},
        deployments={n: Workload(n, *r.container(r.at("spec.template.spec"))) for n, r in found["Deployment"].items()},
        jobs={n: _job(r) for n, r in found["JobSink"].items()},
    )
    _check_references(manifests, found["Trigger"])
    return manifests


@dataclass(frozen=True)
class _Resource:
    """One document with the errors that name it."""

    file: str
    kind: str
    name: str
    body: Json

    @classmethod
    def of(cls, path: Path, body: Json) -> _Resource:
        resource = cls(path.name, str(body.get("kind")), str((body.get("metadata") or {}).get("name")), body)
        if _GROUPS.get(resource.kind) != str(body.get("apiVersion")).split("/")[0]:
            raise resource.bad(
                "kind", f"{body.get('apiVersion')} {resource.kind} is not a resource that the single-machine runner understands"
            )
        return resource

    def bad(self, where: str, what: str) -> BadManifest:
        return BadManifest(
            f"{self.file}: {self.kind} {self.name}: `{where}` {what}",
            field=where,
            remedy="Change the file, or run it on a cluster with Knative.",
        )

    def at(self, path: str) -> Json:
        value: Any = self.body
        for name in path.split("."):
            value = (value.get(name) if isinstance(value, Mapping) else None) or {}
        if not isinstance(value, Mapping):
            raise self.bad(path, "must be an object")
        return value

    def only(self, path: str, known: set[str], value: Json | None = None) -> Json:
        value = self.at(path) if value is None else value
        if unknown := sorted(set(value) - known):
            raise self.bad(f"{path}.{unknown[0]}", "is not understood by the single-machine runner")
        return value

    def annotation(self, name: str, path: str = "metadata.annotations") -> str | None:
        return self.at(path).get(name)

    def duration(self, where: str, value: Any, default: float) -> float:
        try:
            return default if value is None else seconds(str(value))
        except ValueError:
            raise self.bad(where, "is not a duration such as PT0.5S or 60s") from None

    def delivery(self, spec: Json | None, default: Delivery) -> Delivery:
        """`spec` over `default`: Knative takes a Trigger's delivery instead of the Broker's, except for the dead letters."""
        if not spec:
            return default
        known = {"retry", "backoffPolicy", "backoffDelay", "timeout", "retryAfterMax", "deadLetterSink"}
        self.only("spec.delivery", known, spec)
        sink = self.only("spec.delivery.deadLetterSink", {"ref"}, spec.get("deadLetterSink") or {}).get("ref")
        if sink and sink.get("kind") != "KafkaSink":
            raise self.bad("spec.delivery.deadLetterSink.ref.kind", "must be KafkaSink")
        if (policy := spec.get("backoffPolicy", "exponential")) not in ("exponential", "linear"):
            raise self.bad("spec.delivery.backoffPolicy", "must be exponential or linear")
        return Delivery(
            int(spec.get("retry", 0)),
            policy == "exponential",
            self.duration("spec.delivery.backoffDelay", spec.get("backoffDelay"), 0.2),
            self.duration("spec.delivery.timeout", spec.get("timeout"), default.timeout),
            self.duration("spec.delivery.retryAfterMax", spec.get("retryAfterMax"), default.retry_after_max),
            sink["name"] if sink else default.dead_letters,
        )

    def container(self, pod: Json) -> tuple[tuple[str, ...], Mapping[str, str]]:
        """Command and environment of the pod's one container."""
        containers = pod.get("containers") or []
        if len(containers) != 1 or not containers[0].get("command"):
            raise self.bad("spec...containers", "must hold one container, with its `command`")
        env = {entry["name"]: str(entry["value"]) for entry in containers[0].get("env") or [] if "value" in entry}
        return (*map(str, containers[0]["command"]), *map(str, containers[0].get("args") or [])), env


def _listed(folder: Path) -> list[Path]:
    if not (folder / "kustomization.yaml").is_file():
        raise BadManifest(
            f"there is no kustomization.yaml in {folder}", remedy="Name the folder that holds the manifests, e.g. eventing/base."
        )
    ((kustomization),) = _documents(folder / "kustomization.yaml")
    known = {"apiVersion", "kind", "metadata", "resources", "labels", "images", "namespace"}
    if unknown := sorted(set(kustomization) - known):
        raise BadManifest(f"kustomization.yaml: `{unknown[0]}` is not understood by the single-machine runner", field=unknown[0])
    return [folder / name for name in kustomization.get("resources") or []]


def _documents(path: Path) -> list[Json]:
    import yaml  # optional: only the single-machine runner reads YAML

    try:
        found = [document for document in yaml.safe_load_all(path.read_text()) if document is not None]
    except (OSError, ValueError, yaml.YAMLError):
        raise BadManifest(f"{path.name} cannot be read as YAML", field=path.name) from None
    if not all(isinstance(document, dict) for document in found):
        raise BadManifest(f"{path.name} holds something that is no resource", field=path.name)
    return found


def _trigger(resource: _Resource, broker: str, delivery: Delivery) -> Trigger:
    spec = resource.only("spec", {"broker", "filter", "filters", "subscriber", "delivery"})
    if spec.get("broker") != broker:
        raise resource.bad("spec.broker", f"must be {broker}, the one Broker there is")
    ref = resource.only("spec.subscriber", {"ref"}).get("ref") or {}
    if ref.get("kind") not in ("Service", "JobSink", "KafkaSink"):
        raise resource.bad("spec.subscriber.ref.kind", "must be Service, JobSink or KafkaSink")
    if filters := spec.get("filters"):  # where both are given Knative takes `filters`
        matches = _all([_filter(resource, entry) for entry in filters])
    else:
        wanted = resource.only("spec.filter", {"attributes"}).get("attributes") or {}
        matches = _all([_attribute(resource, "exact", name, str(value)) for name, value in wanted.items() if value != ""])
    ordered = resource.annotation(_ORDER) == "ordered"
    return Trigger(resource.name, matches, ref["kind"], ref["name"], resource.delivery(spec.get("delivery"), delivery), ordered)


def _filter(resource: _Resource, entry: Json) -> Filter:
    if len(entry) != 1:
        raise resource.bad("spec.filters", "needs one dialect in each entry")
    ((dialect, value),) = entry.items()
    if dialect in ("exact", "prefix", "suffix"):
        return _all([_attribute(resource, dialect, name, str(text)) for name, text in value.items()])
    if dialect == "not":
        inner = _filter(resource, value)
        return lambda event: not inner(event)
    if dialect in ("all", "any"):
        inners = [_filter(resource, one) for one in value]
        return _all(inners) if dialect == "all" else lambda event: any(one(event) for one in inners)
    raise resource.bad(f"spec.filters.{dialect}", "is a dialect that the single-machine runner does not understand")


def _attribute(resource: _Resource, dialect: str, name: str, text: str) -> Filter:
    if not text:
        raise resource.bad(f"spec.filters.{dialect}.{name}", "must not be empty")
    if dialect == "exact":
        return lambda event: event.get(name) == text
    method = str.startswith if dialect == "prefix" else str.endswith
    return lambda event: name in event and method(event[name], text)


def _all(filters: list[Filter]) -> Filter:
    return lambda event: all(one(event) for one in filters)


def _source(resource: _Resource, broker: str) -> Source:
    known = {"bootstrapServers", "topics", "consumerGroup", "sink", "consumers", "initialOffset", "ordering", "delivery"}
    spec = resource.only("spec", known)
    ref = resource.only("spec.sink", {"ref"}).get("ref") or {}
    if (ref.get("kind"), ref.get("name")) != ("Broker", broker):
        raise resource.bad("spec.sink.ref", f"must be the Broker {broker}")
    if spec.get("initialOffset", "earliest") != "earliest":
        raise resource.bad("spec.initialOffset", "must be earliest")
    return Source(resource.name, tuple(spec["topics"]), spec["consumerGroup"])


def _sink(resource: _Resource) -> Sink:
    spec = resource.only("spec", {"topic", "bootstrapServers", "contentMode", "numPartitions", "replicationFactor", "auth"})
    return Sink(resource.name, spec["topic"], spec.get("contentMode") == "structured")


def _service(resource: _Resource) -> Workload:
    pod = resource.at("spec.template.spec")
    retention = resource.annotation(_RETENTION, "spec.template.metadata.annotations")
    always = str(resource.annotation("autoscaling.knative.dev/min-scale", "spec.template.metadata.annotations") or "0") != "0"
    idle = None if always else resource.duration(f"metadata.annotations.{_RETENTION}", retention, 60.0)
    return Workload(resource.name, *resource.container(pod), int(pod.get("containerConcurrency") or 10), idle)


def _job(resource: _Resource) -> Job:
    spec = resource.at("spec.job.spec")
    command, env = resource.container(resource.at("spec.job.spec.template.spec"))
    return Job(resource.name, command, env, int(spec.get("backoffLimit", 6)), spec.get("activeDeadlineSeconds"))


def _check_references(manifests: Manifests, resources: Mapping[str, _Resource]) -> None:
    there: dict[str, Mapping[str, Any]] = {"Service": manifests.services, "JobSink": manifests.jobs, "KafkaSink": manifests.sinks}
    for trigger in manifests.triggers.values():
        if trigger.subscriber not in there[trigger.kind]:
            raise resources[trigger.name].bad("spec.subscriber.ref", f"names the {trigger.kind} {trigger.subscriber}, which does not exist")
        if trigger.delivery.dead_letters and trigger.delivery.dead_letters not in manifests.sinks:
            raise resources[trigger.name].bad(
                "spec.delivery.deadLetterSink", f"names the KafkaSink {trigger.delivery.dead_letters}, which does not exist"
            )


def seconds(text: str) -> float:
    """Seconds of an ISO 8601 duration (`PT0.5S`) or of Go's (`1m30s`). Raises ValueError."""
    number = r"(\d+(?:\.\d+)?)"
    units = {"D": 86400.0, "d": 86400.0, "H": 3600.0, "h": 3600.0, "M": 60.0, "m": 60.0, "S": 1.0, "s": 1.0}
    iso = re.fullmatch(rf"P(?:{number}D)?(?:T(?:{number}H)?(?:{number}M)?(?:{number}S)?)?", text)
    if iso and any(iso.groups()):
        return sum(float(part) * units[unit] for part, unit in zip(iso.groups(), "DHMS", strict=True) if part)
    go = re.fullmatch(rf"(?:{number}h)?(?:{number}m)?(?:{number}s)?", text)
    if go and any(go.groups()):
        return sum(float(part) * units[unit] for part, unit in zip(go.groups(), "hms", strict=True) if part)
    raise ValueError(text)
