"""Knative's schema as far as the platform uses it, for reading the YAML under `eventing/`.

Fields that would change which events are delivered, where, or how often are spelled out and nothing else is taken
(Strict); of pods and jobs only what makes a process is read (Open), since images, resources and probes mean nothing on
one machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

__all__ = ["KINDS", "DeliverySpec", "Kustomization", "Metadata", "Template", "TriggerSpec", "seconds"]


def seconds(value: object) -> float:
    """Seconds of an ISO 8601 duration (`PT0.5S`) or of Go's (`1m30s`). Raises ValueError."""
    n = r"(\d+(?:\.\d+)?)"
    for pattern in (rf"P(?:{n}D)?(?:T(?:{n}H)?(?:{n}M)?(?:{n}S)?)?", rf"(?:{n}d)?(?:{n}h)?(?:{n}m)?(?:{n}s)?"):
        found = re.fullmatch(pattern, str(value))
        if found and any(found.groups()):
            return sum(float(part) * unit for part, unit in zip(found.groups(), (86400, 3600, 60, 1), strict=True) if part)
    raise ValueError("must be a duration such as PT0.5S or 60s")


Duration = Annotated[float, BeforeValidator(seconds)]
Text = Annotated[str, Field(min_length=1)]


class Strict(BaseModel):
    """A resource whose every field counts."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)


class Open(BaseModel):
    """A resource of which only some fields count."""

    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel)


class Ref(Strict):
    """Names a resource of the same namespace."""

    api_version: str
    kind: str
    name: str


class Destination(Strict):
    """Where events go."""

    ref: Ref

    def of_kind(self, *kinds: str) -> str:
        if self.ref.kind not in kinds:
            raise ValueError(f"a reference must be to {' or '.join(kinds)} here")
        return self.ref.name


class DeliverySpec(Strict):
    """Retries and dead letters."""

    retry: int = 0
    backoff_policy: Literal["exponential", "linear"] = "exponential"
    backoff_delay: Duration = 0.2
    timeout: Duration = 300.0
    retry_after_max: Duration = 30.0
    dead_letter_sink: Destination | None = None


class Filter(Strict):
    """One dialect of CloudEvents' subscriptions API."""

    exact: dict[str, Text] | None = None
    prefix: dict[str, Text] | None = None
    suffix: dict[str, Text] | None = None
    all: list[Filter] | None = None
    any: list[Filter] | None = None
    not_: Filter | None = Field(None, alias="not")

    @model_validator(mode="after")
    def _one(self) -> Filter:
        if len(self.model_fields_set) != 1:
            raise ValueError("a filter needs exactly one dialect")
        return self

    def matches(self, event: Mapping[str, str]) -> bool:
        if self.not_ is not None:
            return not self.not_.matches(event)
        if self.any is not None:
            return any(one.matches(event) for one in self.any)
        if self.all is not None:
            return all(one.matches(event) for one in self.all)
        tests = ((self.exact, str.__eq__), (self.prefix, str.startswith), (self.suffix, str.endswith))
        return all(name in event and test(event[name], text) for wanted, test in tests for name, text in (wanted or {}).items())


class AttributesFilter(Strict):
    """The older filter: attributes that must be equal."""

    attributes: dict[str, str] = {}


class BrokerSpec(Strict):
    """A Broker."""

    config: dict[str, Any] = {}
    delivery: DeliverySpec | None = None


class TriggerSpec(Strict):
    """A Trigger."""

    broker: str
    filter: AttributesFilter = AttributesFilter()
    filters: list[Filter] = []
    subscriber: Destination
    delivery: DeliverySpec | None = None

    def matches(self, event: Mapping[str, str]) -> bool:
        """Where both are given, Knative takes `filters`; an empty attribute in `filter` accepts everything."""
        if self.filters:
            return all(one.matches(event) for one in self.filters)
        return all(event.get(name) == value for name, value in self.filter.attributes.items() if value)


class SourceSpec(Strict):
    """A KafkaSource."""

    topics: list[str]
    consumer_group: str
    sink: Destination
    delivery: DeliverySpec = DeliverySpec()
    initial_offset: Literal["earliest"] = "earliest"
    ordering: Literal["ordered"] = "ordered"
    bootstrap_servers: list[str] = []
    consumers: int = 1


class SinkSpec(Strict):
    """A KafkaSink."""

    topic: str
    content_mode: Literal["binary", "structured"] = "binary"
    bootstrap_servers: list[str] = []
    num_partitions: int = 1
    replication_factor: int = 1
    auth: dict[str, Any] = {}


class Container(Open):
    """What runs."""

    command: list[str] = Field(min_length=1)
    args: list[str] = []
    env: list[dict[str, Any]] = []


class Pod(Open):
    """A pod of one container."""

    containers: list[Container] = Field(min_length=1, max_length=1)
    container_concurrency: int = 0

    def process(self) -> tuple[tuple[str, ...], Mapping[str, str]]:
        (one,) = self.containers
        return (*one.command, *one.args), {entry["name"]: str(entry["value"]) for entry in one.env if "value" in entry}


class Metadata(Open):
    """A resource's name and annotations."""

    name: str = ""
    annotations: dict[str, str] = {}


class Template(Open):
    """A pod template."""

    metadata: Metadata = Metadata()
    spec: Pod


class WorkloadSpec(Open):
    """A Knative Service or a Deployment."""

    template: Template


class JobSpec(Open):
    """A Kubernetes Job."""

    template: Template
    backoff_limit: int = 6
    active_deadline_seconds: float | None = None


class JobTemplate(Open):
    """The Job that a JobSink makes."""

    spec: JobSpec


class JobSinkSpec(Strict):
    """A JobSink."""

    job: JobTemplate


class Kustomization(Strict):
    """A kustomization that lists resources and changes none."""

    resources: list[str]
    api_version: str = ""
    kind: str = "Kustomization"
    labels: list[Any] = []
    images: list[Any] = []
    namespace: str = ""


# Which kinds there are, by API group; a SinkBinding only says where the Broker is, which the runner tells every process.
KINDS: dict[str, tuple[str, type[BaseModel]]] = {
    "Broker": ("eventing.knative.dev", BrokerSpec),
    "Trigger": ("eventing.knative.dev", TriggerSpec),
    "KafkaSource": ("sources.knative.dev", SourceSpec),
    "KafkaSink": ("eventing.knative.dev", SinkSpec),
    "JobSink": ("sinks.knative.dev", JobSinkSpec),
    "Service": ("serving.knative.dev", WorkloadSpec),
    "Deployment": ("apps", WorkloadSpec),
    "SinkBinding": ("sources.knative.dev", Open),
}
