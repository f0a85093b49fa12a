"""A platform around `stub_function.py`, for tests of the runner on a real Kafka: its manifests, its home, and the runner as a process."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlaas import events
from mlaas.errors import MlaasError
from mlaas.local.kafka_server import free_port, install
from mlaas.settings import load

STUB = Path(__file__).with_name("stub_function.py")
MANIFESTS = f"""
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {{name: mlaas}}
spec:
  delivery:
    retry: 2
    backoffPolicy: linear
    backoffDelay: PT0.1S
    deadLetterSink: {{ref: {{kind: KafkaSink, apiVersion: eventing.knative.dev/v1alpha1, name: dead-letters}}}}
---
apiVersion: sources.knative.dev/v1
kind: KafkaSource
metadata: {{name: requests}}
spec:
  topics: [mlaas.requests]
  consumerGroup: mlaas-requests
  sink: {{ref: {{apiVersion: eventing.knative.dev/v1, kind: Broker, name: mlaas}}}}
---
apiVersion: eventing.knative.dev/v1alpha1
kind: KafkaSink
metadata: {{name: events}}
spec: {{topic: mlaas.events, contentMode: binary}}
---
apiVersion: eventing.knative.dev/v1alpha1
kind: KafkaSink
metadata: {{name: dead-letters}}
spec: {{topic: mlaas.dead-letters}}
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {{name: fill-mask}}
spec:
  template:
    metadata: {{annotations: {{autoscaling.knative.dev/scale-to-zero-pod-retention-period: 1s}}}}
    spec:
      containerConcurrency: 4
      containers: [{{command: [python, {STUB}]}}]
---
apiVersion: sinks.knative.dev/v1alpha1
kind: JobSink
metadata: {{name: train}}
spec: {{job: {{spec: {{backoffLimit: 1, activeDeadlineSeconds: 60, template: {{spec: {{containers: [{{command: [python, {STUB}]}}]}}}}}}}}}}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {{name: stub}}
spec:
  broker: mlaas
  filters: [{{not: {{any: [{{exact: {{type: it.infn.mlaas.train.accepted.v1}}}}, {{suffix: {{type: .succeeded.v1}}}}]}}}}]
  subscriber: {{ref: {{apiVersion: serving.knative.dev/v1, kind: Service, name: fill-mask}}}}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {{name: train-accepted}}
spec:
  broker: mlaas
  filter: {{attributes: {{type: it.infn.mlaas.train.accepted.v1}}}}
  subscriber: {{ref: {{apiVersion: sinks.knative.dev/v1alpha1, kind: JobSink, name: train}}}}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {{name: events, annotations: {{kafka.eventing.knative.dev/delivery.order: ordered}}}}
spec:
  broker: mlaas
  filters: [{{suffix: {{type: .succeeded.v1}}}}]
  subscriber: {{ref: {{apiVersion: eventing.knative.dev/v1alpha1, kind: KafkaSink, name: events}}}}
"""


@dataclass
class Home:
    """A folder for one platform, with the stub's manifests."""

    folder: Path

    def __post_init__(self):
        (self.folder / "base").mkdir(parents=True)
        (self.folder / "base" / "all.yaml").write_text(MANIFESTS)
        (self.folder / "base" / "kustomization.yaml").write_text("resources: [all.yaml]\n")
        self.calls_file.touch()

    @property
    def calls_file(self):
        return self.folder / "calls"

    def calls(self, event_id):
        """Process ids of the stubs that got the event."""
        return [pid for pid, called in map(json.loads, self.calls_file.read_text().splitlines()) if called == event_id]

    def settings(self):
        return load({"MLAAS_HOME": str(self.folder / "home"), "MLAAS_MAX_BODY_BYTES": "200000"})


@contextlib.contextmanager
def runner(home, kafka_port):
    """The platform in a process of its own, in its own session, as a terminal would start it."""
    code = (
        "import sys; from pathlib import Path; from mlaas.settings import load; from mlaas.local.platform import Platform\n"
        f"with Platform(load({{'MLAAS_HOME': {str(home.folder / 'home')!r}}}), Path({str(home.folder / 'base')!r}), port={free_port()},\n"
        f"              kafka_port={kafka_port}, say=lambda line: print(line, flush=True)) as platform: platform.wait()"
    )
    environ = {**os.environ, "STUB_CALLS": str(home.calls_file), "MLAAS_MARK": str(home.folder)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE, text=True, start_new_session=True)
    with process:
        try:
            assert any(line.startswith("ready") for line in process.stdout), "the platform did not start"
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(12)


def marked(home):
    """Processes that were started by a runner of this home: they have inherited its environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"MLAAS_MARK={home.folder}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def until(condition, timeout=15.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def requests(prefix, count, data=None):
    return [events.new("fill_mask", {"n": n, **(data or {})}, id=f"{prefix}-{n}") for n in range(count)]


def answered(found, prefix):
    return {event["causationid"] for event in found if event["causationid"].startswith(f"{prefix}-")}


def needs_kafka():
    """Skip the test where Apache Kafka's jars cannot be had."""
    try:
        install()
    except MlaasError as error:
        pytest.skip(f"Apache Kafka's jars cannot be had: {error.detail}")
