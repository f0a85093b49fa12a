"""`mlaas up`: the function, the trainer, Kafka and the runner killed with -9 in the middle of work."""

from __future__ import annotations

import gc
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import requests

from mlaas import events
from mlaas.catalog import Catalog
from mlaas.client import EventClient
from mlaas.documents import connect
from mlaas.errors import MlaasError
from mlaas.local.kafka_server import install
from mlaas.settings import Settings
from mlaas.tasks import Tasks
from mlaas.testing.fault_table import Row
from mlaas.testing.homes import tiny_home
from mlaas.testing.kafka import publish
from mlaas.testing.processes import Up, until

COUNT = 600
TEXTS = {"INFN Frascati": "LNF", "INFN CNAF": "CNAF", "Universita di Firenze": "FI", "elsewhere": "[NoSite]"}
ASKED = {"model": {"name": "infn-structures"}, "predict_input": {"input_text": ["INFN Frascati"]}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    try:
        install()
    except MlaasError as error:
        pytest.skip(f"Apache Kafka's jars cannot be had: {error.detail}")
    return tiny_home(tmp_path_factory.mktemp("up"))


@pytest.fixture(autouse=True)
def _forsaken_sockets() -> Iterator[None]:
    """Collected here, where what they say is ignored."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def up(made: Settings) -> Up:
    return Up(made.home)


@pytest.fixture
def tasks(made: Settings) -> Iterator[Tasks]:
    tasks = Tasks(connect(made.documents_url))
    yield tasks
    tasks.documents.close()


class Batch:
    """COUNT classifications under way, and their replies by id."""

    def __init__(self, name: str, up: Up) -> None:
        texts = list(TEXTS)
        self.wanted = {f"{name}-{number}": TEXTS[texts[number % len(texts)]] for number in range(COUNT)}
        self.ids, self.answered, self.up = Counter[str](), set[str](), up
        self.events = [
            events.new("classify", {**ASKED, "predict_input": {"input_text": [texts[n % len(texts)]]}}, source="/faults", id=f"{name}-{n}")
            for n in range(COUNT)
        ]

    def read(self, client: EventClient, *, seconds: float, until: int = COUNT) -> None:
        """Read until so many requests have their reply; each must be right."""
        if len(self.answered) >= until:
            return
        for event in client.watch(seconds=seconds):
            cause = event.get("causationid")
            if cause not in self.wanted:
                continue
            assert event["type"] == events.event_type("classify", "succeeded")
            assert event["id"] == events.derived_id("/faults", cause, "classify", "succeeded")
            assert event.data["predictions"][0]["label"] == self.wanted[cause]
            self.ids[event["id"]] += 1
            self.answered.add(cause)
            if len(self.answered) >= until:
                return

    @property
    def lost(self) -> int:
        return COUNT - len(self.answered)

    @property
    def twice(self) -> int:
        return sum(self.ids.values()) - len(self.ids)


def serves(up: Up) -> bool:
    try:
        return requests.post(f"{up.url}/classify", json=ASKED, timeout=10).ok
    except requests.RequestException:
        return False


def takes_events(up: Up) -> bool:
    """Whether an event is durably taken: its type is one that nothing answers."""
    headers, body = events.to_http(events.build("it.infn.mlaas.faults.probe.v1", "/faults", {}))
    return requests.post(f"{up.url}/broker", data=body, headers=headers, timeout=30).status_code == 202


def begin_training(up: Up, tasks: Tasks, request: dict[str, Any], id: str) -> str:
    """Ask for a training and wait until it trains; the task's id."""
    cause = events.new("train", request, source="/faults", id=id)
    publish(up.kafka, "mlaas.requests", [cause])
    until(lambda: tasks.known("train", cause), 60, "the task")
    task_id: str = tasks.known("train", cause)["subject"]  # type: ignore[index]
    until(lambda: (tasks.get(task_id).get("progress") or {}).get("step", 0) > 0, 90, "the training's first step")
    return task_id


def completions(client: EventClient, task_id: str, *, seconds: float) -> list[str]:
    """The ids of the completion events of a task, each time one came, until none has come for a moment."""
    found: list[str] = []
    for event in client.watch(seconds=seconds):
        if event["subject"] == task_id and event["type"] == events.event_type("train", "succeeded"):
            found.append(event["id"])
    return found


def versions(tasks: Tasks, name: str) -> list[str]:
    return [entry["version"] for entry in Catalog(tasks.documents).versions("models", name)]


def ended(tasks: Tasks, task_ids: Iterable[str]) -> bool:
    return all(tasks.get(one)["task_status"] in ("succeeded", "failed", "cancelled") for one in task_ids)


@pytest.mark.fault("kill -9 of a function, classify", deadline=120)
def test_no_request_is_lost_with_the_function(row: Row, draw: random.Random, up: Up) -> None:
    strike = draw.randint(COUNT // 20, COUNT // 2)
    with up.running(), EventClient(up.kafka) as client:
        batch = Batch("function", up)
        client.send(batch.events)
        batch.read(client, seconds=60, until=strike)
        killed = up.pid("classify")
        assert killed
        os.kill(killed, signal.SIGKILL)
        seconds = until(lambda: serves(up), 30, "service")
        batch.read(client, seconds=60)
        assert up.pid("classify") != killed
    row.measured(moment=f"after {strike} replies", in_flight=f"{COUNT} events", lost=batch.lost, twice=batch.twice, seconds=seconds)


@pytest.mark.fault("kill -9 of the trainer", deadline=180)
def test_a_training_ends_though_its_process_is_killed(
    row: Row, draw: random.Random, up: Up, made: Settings, tasks: Tasks, trainable: Any
) -> None:
    with up.running(), EventClient(up.kafka) as client:
        task_id = begin_training(up, tasks, trainable(made, epochs=80, name="trainer"), "trainer")
        time.sleep(draw.uniform(0, 2))
        percent = tasks.get(task_id)["progress"]["percent"]
        assert not ended(tasks, [task_id])
        [killed] = up.job_pids()
        os.kill(killed, signal.SIGKILL)
        seconds = until(lambda: tasks.get(task_id)["stats"]["attempts"] == 2, 60, "the second attempt")
        until(lambda: ended(tasks, [task_id]), 90, "the end of the training")
        found = completions(client, task_id, seconds=3)
    task = tasks.get(task_id)
    assert (task["task_status"], task["stats"]["attempts"]) == ("succeeded", 2)
    assert versions(tasks, "trainer") == ["1"]
    assert len(set(found)) == 1
    row.measured(moment=f"at {percent:.0f} %", in_flight="1 training", lost=0, twice=len(found) - 1, seconds=seconds)


@pytest.mark.fault("kill -9 of Kafka", deadline=180)
def test_no_request_is_lost_with_the_broker(row: Row, draw: random.Random, up: Up) -> None:
    strike = draw.randint(COUNT // 20, COUNT // 2)
    with up.running(), EventClient(up.kafka) as client:
        batch = Batch("kafka", up)
        client.send(batch.events)
        batch.read(client, seconds=60, until=strike)
        killed = up.kafka_pid()
        assert killed
        os.kill(killed, signal.SIGKILL)
        seconds = until(lambda: takes_events(up), 60, "service")
        batch.read(client, seconds=90)
        assert up.kafka_pid() != killed
    row.measured(moment=f"after {strike} replies", in_flight=f"{COUNT} events", lost=batch.lost, twice=batch.twice, seconds=seconds)


@pytest.mark.fault("kill -9 of the runner, `mlaas up`, which is then started again", deadline=240)
def test_no_request_and_no_training_is_lost_with_the_runner(
    row: Row, draw: random.Random, up: Up, made: Settings, tasks: Tasks, trainable: Any
) -> None:
    strike = draw.randint(COUNT // 20, COUNT // 2)
    batch = Batch("runner", up)
    with up.running() as process, EventClient(up.kafka) as client:
        task_id = begin_training(up, tasks, trainable(made, epochs=150, name="runner"), "runner")
        client.send(batch.events)
        batch.read(client, seconds=60, until=strike)
        assert not ended(tasks, [task_id])
        first = up.job_pids()
        process.kill()
        process.wait(timeout=10)
        struck = time.monotonic()
    with up.running(), EventClient(up.kafka) as client:
        until(lambda: serves(up), 30, "service")
        seconds = time.monotonic() - struck
        client.from_beginning()
        batch.ids.clear()
        batch.answered.clear()
        batch.read(client, seconds=90)
        until(lambda: up.job_pids() or ended(tasks, [task_id]), 60, "the second run")
        assert not set(first) & set(up.job_pids()), "the processes of the killed runner are gone"
        until(lambda: ended(tasks, [task_id]), 120, "the end of the training")
        time.sleep(1)
        client.from_beginning()
        found = completions(client, task_id, seconds=4)
    task = tasks.get(task_id)
    assert task["task_status"] == "succeeded"
    assert versions(tasks, "runner") == ["1"]
    assert len(set(found)) == 1
    row.measured(
        moment=f"after {strike} replies",
        in_flight=f"{COUNT} events, 1 training",
        lost=batch.lost,
        twice=batch.twice + len(found) - 1,
        seconds=seconds,
    )
