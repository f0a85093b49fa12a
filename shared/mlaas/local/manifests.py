"""The YAML under `eventing/` as frozen dataclasses: what the single-machine runner acts on.

Knative's schema, as far as the platform uses it. What it does not understand it refuses where leaving it out would change
which events are delivered, where, or how often; images, resources and probes mean nothing here and are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import InvalidRequest
from .schema import KINDS, DeliverySpec, JobSpec, Kustomization, Metadata, Open, Template, seconds

__all__ = ["BadManifest", "Delivery", "Job", "Manifests", "Sink", "Source", "Trigger", "Workload", "load"]

Attributes = Mapping[str, str]
ORDER = "kafka.eventing.knative.dev/delivery.order"
RETENTION = "autoscaling.knative.dev/scale-to-zero-pod-retention-period"
MIN_SCALE = "autoscaling.knative.dev/min-scale"


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
    matches: Callable[[Attributes], bool]
    kind: str
    subscriber: str
    delivery: Delivery
    ordered: bool = False


@dataclass(frozen=True)
class Source:
    """A KafkaSource: records of `topics` go to the Broker, or to the KafkaSink `dead_letters`."""

    name: str
    topics: tuple[str, ...]
    group: str
    dead_letters: str | None


@dataclass(frozen=True)
class Sink:
    """A KafkaSink: events sent to it are records of `topic`."""

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
    backoff_limit: int
    deadline: float | None


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
    found: dict[str, dict[str, tuple[Metadata, Any]]] = {kind: {} for kind in KINDS}
    for path in _listed(folder):
        for document in _documents(path):
            kind, metadata, spec = _resource(path.name, document)
            if metadata.name in found[kind]:
                raise BadManifest(f"{path.name}: there is a second {kind} {metadata.name}", field="metadata.name", remedy="Rename one.")
            found[kind][metadata.name] = metadata, spec
    if len(found["Broker"]) != 1:
        raise BadManifest(f"{folder.name} needs exactly one Broker", field="Broker", remedy="The single-machine runner has one.")
    ((broker, (_, spec)),) = found["Broker"].items()
    try:
        manifests = _wire(broker, _delivery(spec.delivery, Delivery()), found)
        _check(manifests)
    except ValueError as error:
        raise BadManifest(f"{folder.name}: {error}", remedy="Change the file, or run it on a cluster with Knative.") from None
    return manifests


def _wire(broker: str, delivery: Delivery, found: Mapping[str, Mapping[str, tuple[Metadata, Any]]]) -> Manifests:
    triggers, sources = {}, {}
    for name, (metadata, spec) in found["Trigger"].items():
        if spec.broker != broker:
            raise ValueError(f"the Trigger {name} names the Broker {spec.broker}, there is {broker}")
        subscriber = spec.subscriber.of_kind("Service", "JobSink", "KafkaSink")
        own = _delivery(spec.delivery, delivery)
        triggers[name] = Trigger(
            name, spec.matches, spec.subscriber.ref.kind, subscriber, own, metadata.annotations.get(ORDER) == "ordered"
        )
    for name, (_, spec) in found["KafkaSource"].items():
        if spec.sink.of_kind("Broker") != broker:
            raise ValueError(f"the KafkaSource {name} names the Broker {spec.sink.ref.name}, there is {broker}")
        sources[name] = Source(name, tuple(spec.topics), spec.consumer_group, _delivery(spec.delivery, delivery).dead_letters)
    return Manifests(
        broker,
        triggers,
        sources,
        {name: Sink(spec.topic, spec.content_mode == "structured") for name, (_, spec) in found["KafkaSink"].items()},
        {name: _service(name, spec.template) for name, (_, spec) in found["Service"].items()},
        {name: Workload(name, *spec.template.spec.process()) for name, (_, spec) in found["Deployment"].items()},
        {name: _job(name, spec.job.spec) for name, (_, spec) in found["JobSink"].items()},
    )


def _delivery(spec: DeliverySpec | None, broker: Delivery) -> Delivery:
    """A Trigger's delivery stands instead of its Broker's, except for the dead letters."""
    if spec is None:
        return broker
    letters = spec.dead_letter_sink.of_kind("KafkaSink") if spec.dead_letter_sink else broker.dead_letters
    return Delivery(spec.retry, spec.backoff_policy == "exponential", spec.backoff_delay, spec.timeout, spec.retry_after_max, letters)


def _service(name: str, template: Template) -> Workload:
    always = template.metadata.annotations.get(MIN_SCALE, "0") != "0"
    retention = None if always else seconds(template.metadata.annotations.get(RETENTION, "60s"))
    return Workload(name, *template.spec.process(), template.spec.container_concurrency or 10, retention)


def _job(name: str, spec: JobSpec) -> Job:
    return Job(name, *spec.template.spec.process(), spec.backoff_limit, spec.active_deadline_seconds)


def _check(manifests: Manifests) -> None:
    there: dict[str, Mapping[str, Any]] = {"Service": manifests.services, "JobSink": manifests.jobs, "KafkaSink": manifests.sinks}
    for one in manifests.triggers.values():
        if one.subscriber not in there[one.kind]:
            raise ValueError(f"the Trigger {one.name} names the {one.kind} {one.subscriber}, which does not exist")
    letters = {one.delivery.dead_letters for one in manifests.triggers.values()} | {one.dead_letters for one in manifests.sources.values()}
    if missing := letters - {None, *manifests.sinks}:
        raise ValueError(f"the KafkaSink {missing.pop()} is named for dead letters and does not exist")


def _resource(file: str, document: Any) -> tuple[str, Metadata, Any]:
    kind = str(document.get("kind")) if isinstance(document, dict) else "nothing"
    group, spec = KINDS.get(kind, ("", Open))
    if not group or str(document.get("apiVersion")).split("/")[0] != group:
        raise BadManifest(f"{file}: {kind} is not a resource that the single-machine runner understands", field="kind")
    return kind, _parse(f"{file}: metadata", Metadata, document.get("metadata")), _parse(f"{file}: spec", spec, document.get("spec"))


def _listed(folder: Path) -> list[Path]:
    if not (folder / "kustomization.yaml").is_file():
        raise BadManifest(f"there is no kustomization.yaml in {folder}", remedy="Name the folder of the manifests, e.g. eventing/base.")
    (document,) = _documents(folder / "kustomization.yaml")
    return [folder / name for name in _parse("kustomization.yaml: ", Kustomization, document).resources]


def _documents(path: Path) -> list[Any]:
    import yaml  # optional: only the single-machine runner reads YAML

    try:
        return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]
    except (OSError, ValueError, yaml.YAMLError):
        raise BadManifest(f"{path.name} cannot be read as YAML", field=path.name, remedy="Correct the file.") from None


def _parse(where: str, model: type[Any], value: Any) -> Any:
    try:
        return model.model_validate(value or {})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        what = "is not understood by the single-machine runner" if first["type"] == "extra_forbidden" else f": {first['msg']}"
        raise BadManifest(f"{where}.{field} {what}", field=field, remedy="Change the file, or run it on a cluster with Knative.") from None
