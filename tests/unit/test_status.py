"""`mlaas status`: each part by itself, what is away with its remedy, and the exit status."""

import json

import pytest
from typer.testing import CliRunner

from mlaas import events, kafka_lag, settings, status
from mlaas.cli import app
from mlaas.documents import connect
from mlaas.errors import InvalidRequest
from mlaas.kafka_lag import DeadLetters, Lag, Waiting
from mlaas.local.runner_metrics import render
from mlaas.settings import load
from mlaas.tasks import Tasks

LETTER = events.build("it.infn.mlaas.classify.requested.v1", "/s", {"text": "of a user"}, id="7", knativeerrorcode="400")
STATE = {
    "functions": {"classify": {"state": "running", "pid": 7, "restarts": 2}},
    "triggers": {"events": {"lag": 3, "in_flight": 1, "delivered": 9, "retried": 4, "dead_lettered": 5}},
    "jobs": {"train": {"running": True, "unfinished": 1}},
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The command with the parts that answer, or raise, as given."""
    monkeypatch.setenv("MLAAS_HOME", str(tmp_path))
    settings.current.cache_clear()

    def run(*arguments, **parts):
        well = {name: (lambda settings, facts=facts: facts) for name, facts in WELL.items()}
        monkeypatch.setattr(status, "PARTS", {**well, **parts})
        return CliRunner().invoke(app, ["status", *arguments])

    yield run
    settings.current.cache_clear()


WELL = {
    "platform": {"url": "http://p", **STATE},
    "kafka": {
        "bootstrap": "k:9092",
        "lags": [{"group": "mlaas-requests", "topic": "mlaas.requests", "partitions": 4, "lag": 12}],
        "dead_letters": {"topic": "mlaas.dead-letters", "exists": True, "count": 1, "newest": {"type": "t", "id": "7", "code": "400", "reason": "odd [text]"}},
    },
    "documents": {"kind": "sqlite", "tasks": {"running": 2}, "outbox": 1, "parked": 3},
    "storage": {"free_bytes": 5_000_000_000},
}  # fmt: skip


def away(settings):
    raise InvalidRequest("Kafka refuses the login", field="MLAAS_KAFKA_PASSWORD", remedy="Check it.")


def test_all_is_shown_and_the_status_is_zero_when_all_is_well(run):
    done = run()
    assert done.exit_code == 0
    for shown in (
        "classify",
        "running",
        "mlaas-requests",
        "12",
        "400 odd [text]",
        "2 running",
        "parked events: 3",
        "5.0 GB",
        "1 unfinished",
    ):
        assert shown in done.output


def test_a_part_that_is_away_says_why_hides_no_other_and_makes_the_status_4(run):
    done = run(kafka=away)
    assert done.exit_code == 4
    assert "away (MLAAS_KAFKA_PASSWORD): Kafka refuses the login" in done.output
    assert "Check it." in done.output
    assert "2 running" in done.output


def test_json_has_the_same(run):
    said = json.loads(run("--json", kafka=away).output)
    assert said["well"] is False
    assert said["parts"]["kafka"] == {
        "well": False,
        "detail": "Kafka refuses the login",
        "field": "MLAAS_KAFKA_PASSWORD",
        "remedy": "Check it.",
    }
    assert said["parts"]["documents"] == {"well": True, **WELL["documents"]}


def test_what_nobody_listens_to_is_away(tmp_path):
    nowhere = {"MLAAS_HOME": str(tmp_path), "MLAAS_URL": "http://127.0.0.1:1", "MLAAS_S3_ENDPOINT": "http://127.0.0.1:1"}
    for ask, field in ((status._platform, "MLAAS_URL"), (status._storage, "MLAAS_S3_ENDPOINT")):
        part = status._ask("some", ask, load(nowhere))
        assert part.problem["field"] == field
        assert part.problem["remedy"]


def test_tasks_are_counted_by_status(tmp_path):
    configured = load({"MLAAS_DOCUMENTS": f"sqlite:///{tmp_path / 'd.sqlite'}"})
    store = connect(configured.documents_url)
    tasks = Tasks(store)
    for number in range(3):
        tasks.accept("train", {}, events.new("train", {}, id=str(number)), publish=number == 0)
    tasks.begin(tasks.find()[0][0]["task_id"])
    facts = status._documents(configured)
    assert facts == {"kind": "sqlite", "tasks": {"accepted": 2, "running": 1}, "outbox": 1, "parked": 0}
    store.close()


def test_the_newest_dead_letter_is_named_without_what_a_user_sent(monkeypatch):
    monkeypatch.setattr(
        kafka_lag, "waiting", lambda settings, newest: Waiting((Lag("g", "t", 1, 2),), DeadLetters(True, 1, LETTER if newest else None))
    )
    facts = status._kafka(load({}))
    assert facts["dead_letters"]["newest"]["id"] == "7"
    assert "of a user" not in json.dumps(facts)
    assert facts["lags"] == [{"group": "g", "topic": "t", "partitions": 1, "lag": 2}]


def test_the_runner_has_its_figures_scraped():
    text = render(lambda: STATE).decode()
    for line in (
        'mlaas_trigger_lag{trigger="events"} 3.0',
        'mlaas_trigger_in_flight{trigger="events"} 1.0',
        'mlaas_trigger_delivered_total{trigger="events"} 9.0',
        'mlaas_trigger_retried_total{trigger="events"} 4.0',
        'mlaas_trigger_dead_lettered_total{trigger="events"} 5.0',
        'mlaas_function_state{function="classify",state="running"} 1.0',
        'mlaas_function_state{function="classify",state="idle"} 0.0',
        'mlaas_function_restarts_total{function="classify"} 2.0',
        'mlaas_jobs_unfinished{job="train"} 1.0',
    ):
        assert line in text.splitlines()
