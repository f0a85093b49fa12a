"""What waits for an operator, in the ledger and among Kafka's dead letters, and its way back."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cloudevents.http import CloudEvent
from typer.testing import CliRunner

from mlaas import events
from mlaas import settings as settings_
from mlaas.cli import app
from mlaas.client import EVENTS, REQUESTS, EventClient
from mlaas.documents import connect, shared
from mlaas.errors import InvalidRequest, Unavailable
from mlaas.journal import Journal
from mlaas.kafka_lag import DEAD_LETTERS
from mlaas.ledger import Ledger
from mlaas.local.broker import Broker
from mlaas.local.kafka_server import KafkaServer, free_port
from mlaas.replay import Desk
from mlaas.settings import Settings, load
from mlaas.tasks import Tasks
from mlaas.testing.homes import tiny_home
from mlaas.testing.kafka import publish, read, running_kafka
from mlaas.testing.s3_server import S3Server
from mlaas.testing.toxic_proxy import ToxicProxy

pytestmark = pytest.mark.services

REASON = base64.b64encode(json.dumps({"detail": "the model is away", "error_id": "e-1"}).encode()).decode()


@pytest.fixture(scope="module")
def kafka() -> Iterator[KafkaServer]:
    with running_kafka() as server:
        Broker(Settings(kafka=server.bootstrap), [REQUESTS, EVENTS, DEAD_LETTERS]).close()  # makes the topics
        yield server


@pytest.fixture
def desk(kafka: KafkaServer, tmp_path: Path) -> Iterator[Desk]:
    settings = load({"MLAAS_HOME": str(tmp_path), "MLAAS_KAFKA": kafka.bootstrap})
    documents = connect(settings.documents_url)
    yield Desk(documents, settings)
    documents.close()


def letter(id: str, data: Any = None, *, type: str = "it.infn.mlaas.classify.requested.v1") -> CloudEvent:
    content = {"predict_input": {"input_text": ["è privato"]}, "n": 2**60} if data is None else data
    error = {"knativeerrordest": "http://localhost:8080/classify", "knativeerrorcode": "503", "knativeerrordata": REASON}
    return events.build(type, "/s", content, id=id, **error)


def waiting(desk: Desk, prefix: str) -> list[str]:
    """Other tests' letters are in the topic as well."""
    return sorted(one.id for one in desk.waiting()[0] if one.id.startswith(prefix))


def requested(kafka: KafkaServer, id: str, count: int) -> list[CloudEvent]:
    def mine(found: list[CloudEvent]) -> list[CloudEvent]:
        return [event for event in found if event["id"] == id]

    return mine(read(kafka.bootstrap, REQUESTS, lambda found: len(mine(found)) >= count))


def test_a_dead_letter_says_why_it_died_and_is_replayed_as_it_was_sent(kafka: KafkaServer, desk: Desk) -> None:
    sent = letter("a-1")
    publish(kafka.bootstrap, DEAD_LETTERS, [sent])
    [found] = [one for one in desk.waiting()[0] if one.id == "a-1"]
    assert (found.where, found.status, found.by) == ("dead-letters", "dead", "classify")
    assert found.reason == {"detail": "the model is away", "status": "503", "error_id": "e-1"}
    assert desk.replay(["a-1"]) == ["a-1"]
    [again] = requested(kafka, "a-1", 1)
    expected = {name: value for name, value in events.to_json(sent).items() if not name.startswith("knativeerror")}
    assert {name: value for name, value in events.to_json(again).items() if name in expected} == expected
    assert not [name for name in again.get_attributes() if name.startswith("knativeerror")]


def test_a_replayed_letter_is_listed_again_only_when_it_died_again(kafka: KafkaServer, desk: Desk) -> None:
    publish(kafka.bootstrap, DEAD_LETTERS, [letter("b-1"), letter("b-1"), letter("b-2")])
    assert waiting(desk, "b-") == ["b-1", "b-1", "b-2"]
    desk.replay(["b-1"])
    assert waiting(desk, "b-") == ["b-2"]
    assert len(requested(kafka, "b-1", 1)) == 1
    publish(kafka.bootstrap, DEAD_LETTERS, [letter("b-1")])
    assert waiting(desk, "b-") == ["b-1", "b-2"]
    with pytest.raises(InvalidRequest, match="nothing waits under the id b-3"):
        desk.replay(["b-2", "b-3"])
    assert waiting(desk, "b-") == ["b-1", "b-2"]


def test_what_is_no_event_is_shown_and_not_replayed_and_all_leaves_it_out(kafka: KafkaServer, desk: Desk) -> None:
    odd = [letter("c-wrapped", "garbage", type=events.KAFKA_RECORD), letter("c-empty", b"")]
    publish(kafka.bootstrap, DEAD_LETTERS, [*odd, letter("c-good")])
    publish(kafka.bootstrap, DEAD_LETTERS, [b"not an event at all"])
    assert waiting(desk, "c-") == ["c-empty", "c-good", "c-wrapped"]
    for id, said in (("c-wrapped", "no CloudEvent"), ("c-empty", "no data")):
        with pytest.raises(InvalidRequest, match=said):
            desk.replay([id])
    assert [id for id in desk.replay(None) if id.startswith("c-")] == ["c-good"]
    assert waiting(desk, "c-") == ["c-empty", "c-wrapped"]


def test_a_parked_event_is_replayed_with_all_its_attempts_and_listed_until_it_is_delivered(kafka: KafkaServer, desk: Desk) -> None:
    ledger = Ledger(desk.documents, limit=1)
    event = events.new("train", {"model": "m"}, id="d-1")

    def away() -> None:
        raise Unavailable("the store is away")

    with pytest.raises(Unavailable):
        ledger.act("train", event, away, error_id="e")
    ledger.act("train", event, away, error_id="e")
    [found] = [one for one in desk.waiting()[0] if one.id == "d-1"]
    assert (found.where, found.status, found.by, found.attempts) == ("ledger", "parked", "train", 1)
    desk.replay(["d-1"])
    assert events.to_json(requested(kafka, "d-1", 1)[0]) == events.to_json(event)
    assert [one.status for one in desk.waiting()[0] if one.id == "d-1"] == ["replayed"]
    ledger.act("train", event, lambda: None, error_id="e")
    assert waiting(desk, "d-") == []


def test_an_event_that_waits_in_both_places_is_published_once(kafka: KafkaServer, desk: Desk) -> None:
    ledger = Ledger(desk.documents, limit=5)
    event = events.build("it.infn.mlaas.train.requested.v1", "/s", {"model": "m"}, id="e-1")

    def away() -> None:
        raise Unavailable("the store is away")

    for _ in range(4):
        with pytest.raises(Unavailable):
            ledger.act("train", event, away, error_id="e")
    publish(kafka.bootstrap, DEAD_LETTERS, [letter("e-1", {"model": "m"}, type=event["type"])])  # the broker gave up first
    desk.replay(["e-1"])
    assert [(one.where, one.status) for one in desk.waiting()[0] if one.id == "e-1"] == [("ledger", "replayed")]
    assert len(requested(kafka, "e-1", 1)) == 1
    assert ledger.get("e-1")[0].attempts == 0


class Up:
    """`mlaas up` with an S3 that can go away, and events that are parked at the second delivery."""

    def __init__(self, settings: Settings, s3: ToxicProxy) -> None:
        self.kafka, port = f"127.0.0.1:{free_port()}", free_port()
        self.environ = {
            **os.environ,
            "MLAAS_HOME": str(settings.home),
            "MLAAS_KAFKA": self.kafka,
            "MLAAS_URL": f"http://127.0.0.1:{port}",
            "MLAAS_S3_ENDPOINT": f"http://127.0.0.1:{s3.port}",
            "MLAAS_EVENT_ATTEMPTS": "1",
        }
        self._command = ["up", "--json", "--port", str(port), "--kafka-port", self.kafka.rpartition(":")[2]]

    @contextmanager
    def running(self) -> Iterator[None]:
        process = subprocess.Popen([sys.executable, "-m", "mlaas.cli", *self._command], stdout=subprocess.PIPE, env=self.environ)
        try:
            assert process.stdout
            assert json.loads(process.stdout.readline())["kafka"] == self.kafka
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=40)

    def mlaas(self, *arguments: str) -> tuple[int, Any, str]:
        """Exit status, standard output as JSON, and standard error of a command."""
        command = [sys.executable, "-m", "mlaas.cli", *arguments, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environ, timeout=60, check=False)
        return done.returncode, json.loads(done.stdout or "null"), " ".join(done.stderr.split())

    def until(self, wanted: Callable[[], bool], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not wanted():
            assert time.monotonic() < deadline
            time.sleep(0.5)


def test_an_operator_sees_what_failed_while_the_store_was_away_and_replays_it(s3_server: S3Server, tmp_path: Path) -> None:
    settings = tiny_home(tmp_path)
    request = {
        "model": {"name": "minilm"},
        "dataset": {"path": "affiliations.tsv", "loader_kwargs": {"page_content_column": "affiliation"}},
        "vector_store_save": {"path": "indexes/new"},
    }
    remote = {"model": {"path": "artefacts/absent", "storage_type": "s3", "objective": "no-objective"}}
    with ToxicProxy(int(s3_server.endpoint.rpartition(":")[2])) as s3:
        s3.refuse()
        up = Up(settings, s3)
        with up.running(), EventClient(up.kafka) as client:
            client.send([events.new("index", {**request, **remote}, id="r-1"), events.new("index", request, id="r-2")])
            parked = client.replies(["r-1"], seconds=90)["r-1"]
            assert parked["type"] == events.event_type("index", "failed")
            assert parked.data["remedy"] == "An operator replays it with `mlaas events replay r-1`."
            publish(up.kafka, REQUESTS, [b"garbage"])
            up.until(lambda: len(up.mlaas("events", "parked")[1]) == 2)
            listed = {one["where"]: one for one in up.mlaas("events", "parked")[1]}
            assert (listed["ledger"]["id"], listed["ledger"]["status"], listed["ledger"]["attempts"]) == ("r-1", "parked", 1)
            assert "no CloudEvent" in listed["dead-letters"]["obstacle"]
            status, _, said = up.mlaas("events", "replay", listed["dead-letters"]["id"])
            assert (status, "no CloudEvent" in said) == (3, True)
            shown = up.mlaas("events", "show", "r-1")[1]["ledger"][0]
            assert "data" not in shown["event"]
            assert up.mlaas("events", "show", "r-1", "--data")[1]["ledger"][0]["event"]["data"]["model"] == remote["model"]

            s3.heal()
            assert up.mlaas("events", "replay", "r-1") == (0, ["r-1"], "")
            again = client.replies(["r-1"], seconds=90, until=lambda event: event["id"] != parked["id"])["r-1"]
            assert (again["type"], again.data["status"]) == (
                events.event_type("index", "failed"),
                404,
            )  # the store is back: the model is not there
            assert [one["id"] for one in up.mlaas("events", "parked")[1]] == [listed["dead-letters"]["id"]]

            up.until(lambda: bool(up.mlaas("events", "--type", "index.succeeded")[1]["events"]))
            [kept] = up.mlaas("events", "--type", "index.succeeded", "--since", "1h")[1]["events"]
            assert up.mlaas("events", "--task", kept["task_id"], "--data")[1]["events"][0]["event"]["data"]["task_status"] == "succeeded"
            assert up.mlaas("events", "--until", "1h")[1]["events"] == []
    documents = connect(settings.documents_url)
    assert [task["task_status"] for task in Tasks(documents).find()[0]] == ["succeeded"]
    documents.close()
    status, found, said = up.mlaas("events", "parked")  # Kafka is away now
    assert (status, found) == (0, [])
    assert "The dead letters are not listed" in said


def test_every_command_of_the_page_for_operators_does_what_it_says(kafka: KafkaServer, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "events.md").read_text()
    commands = re.findall(r"^    mlaas (events.*)$", page, re.MULTILINE)
    [statement] = re.findall(r"^    (DELETE .*)$", page, re.MULTILINE)
    [event_id] = {command.split()[2] for command in commands if command.startswith("events show")}
    publish(kafka.bootstrap, DEAD_LETTERS, [letter(event_id)])
    for id, time_ in (("old", "2025-12-31T23:59:59.999Z"), ("new", "2026-01-01T00:00:00.000Z")):
        made = events.build("it.infn.mlaas.train.succeeded.v1", "/mlaas/train", {}, id=id)
        made["time"] = time_
        Journal(desk.documents).keep("t", made)
    monkeypatch.setenv("MLAAS_HOME", str(desk.settings.home))
    monkeypatch.setenv("MLAAS_KAFKA", kafka.bootstrap)
    settings_.current.cache_clear()
    for command in commands:
        done = CliRunner().invoke(app, command.split())
        assert done.exit_code == 0, (command, done.output)
    shared().close()
    settings_.current.cache_clear()
    assert len(requested(kafka, event_id, 1)) == 1  # replayed by its id, and not once more by --all
    with sqlite3.connect(desk.settings.home / "documents.sqlite") as connection:
        connection.execute(statement)
    connection.close()
    assert [kept.id for kept in Journal(desk.documents).find()] == ["new"]
