"""`mlaas events`: what is kept and what waits, as an operator sees it, without Kafka."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mlaas import dead_letters, documents, events, settings
from mlaas.cli import app
from mlaas.errors import Unavailable
from mlaas.journal import Journal
from mlaas.ledger import Ledger

SECRET = "a private text"


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    def away(_: Any) -> Any:
        raise Unavailable("no Kafka answers", remedy="Start it.")

    monkeypatch.setattr(dead_letters, "read", away)
    monkeypatch.setenv("MLAAS_HOME", str(tmp_path))
    settings.current.cache_clear()
    yield Journal(documents.shared())
    documents.shared().close()
    settings.current.cache_clear()


def keep(journal: Journal, task: str, type: str, time: str) -> str:
    capability, state = type.split(".")
    event = events.build(events.event_type(capability, state), "/s", {"request": SECRET}, subject=task)
    event["time"] = time
    journal.keep(task, event)
    return str(event["id"])


def mlaas(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.stdout, done.stderr


def ids(*arguments: str) -> list[str]:
    return [one["id"] for one in json.loads(mlaas("events", *arguments, "--json")[1])["events"]]


def test_events_are_found_by_task_type_and_time_newest_first(journal: Journal) -> None:
    first = keep(journal, "t-1", "train.succeeded", "2026-01-31T23:59:59.999Z")
    second = keep(journal, "t-2", "train.failed", "2026-02-01T00:00:00.000Z")
    third = keep(journal, "t-2", "index.succeeded", "2026-02-01T10:00:00.000Z")
    assert ids() == [third, second, first]
    assert ids("--task", "t-2") == [third, second]
    assert ids("--type", "train") == [second, first]
    assert ids("--type", "train.succeeded") == ids("--type", "it.infn.mlaas.train.succeeded.v1") == [first]
    assert ids("--since", "2026-02-01") == [third, second]
    assert ids("--until", "2026-02-01") == [first]
    assert ids("--since", "2026-02-01T11:00+01:00") == [third]
    assert ids("--since", "2026-02-01", "--until", "2026-02-01T10:00Z", "--type", "train.failed") == [second]


def test_pages_go_on_where_the_last_one_ended(journal: Journal) -> None:
    made = [keep(journal, f"t-{number}", "train.succeeded", "2026-02-01T00:00:00.000Z") for number in range(7)]
    seen, following = [], None
    while True:
        page = json.loads(mlaas("events", "--limit", "3", "--json", *(["--before", following] if following else []))[1])
        seen += [one["id"] for one in page["events"]]
        if not (following := page["next"]):
            break
    assert seen == made[::-1]
    assert "--before" in mlaas("events", "--limit", "3")[2]


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_a_users_text_is_shown_only_when_asked_for(journal: Journal, arguments: tuple[str, ...]) -> None:
    keep(journal, "t-1", "train.succeeded", "2026-02-01T00:00:00.000Z")
    assert SECRET not in mlaas("events", *arguments)[1]
    assert SECRET in mlaas("events", "--data", *arguments)[1]


@pytest.mark.parametrize(
    "arguments", [("--since", "yesterday"), ("--until", "99999999999d"), ("--type", "trian.succeeded"), ("--before", "x")]
)
def test_what_cannot_be_understood_is_refused_with_the_remedy(journal: Journal, arguments: tuple[str, ...]) -> None:
    status, said, why = mlaas("events", *arguments)
    assert (status, said) == (3, "")
    assert arguments[0].strip("-") in why
    assert "Give" in why


def park(id: str) -> None:
    ledger, event = Ledger(documents.shared(), limit=1, patience=0), events.new("train", {"text": SECRET}, id=id)

    def away() -> None:
        raise Unavailable("the [bold]store[/] is away")

    for expected in (True, False):
        try:
            ledger.act("train", event, away, error_id="e")
        except Unavailable:
            assert expected


def test_while_kafka_is_away_the_ledgers_events_are_listed_with_a_remark(journal: Journal) -> None:
    park("r-1")
    status, said, why = mlaas("events", "parked", "--json")
    [one] = json.loads(said)
    assert (status, one["id"], one["status"], one["attempts"]) == (0, "r-1", "parked", 1)
    assert "no Kafka answers. Start it." in " ".join(why.split())
    table = mlaas("events", "parked")[1]
    assert "r-1" in table
    assert SECRET not in said + table


def test_one_event_is_shown_with_its_reason_and_its_text_only_when_asked_for(journal: Journal) -> None:
    park("r-1")
    status, said, _ = mlaas("events", "show", "r-1", "--json")
    [entry] = json.loads(said)["ledger"]
    assert (status, entry["reason"]["detail"], entry["event"]["id"]) == (0, "the [bold]store[/] is away", "r-1")
    assert SECRET not in said
    assert SECRET in mlaas("events", "show", "r-1", "--data")[1]
    assert mlaas("events", "show", "absent")[0] == 3


def test_a_replay_needs_kafka_and_names_or_all(journal: Journal) -> None:
    park("r-1")
    assert mlaas("events", "replay", "r-1")[0] == 4
    assert Ledger(documents.shared()).parked()[0].status == "parked"
    assert mlaas("events", "replay")[0] == 3
    assert mlaas("events", "replay", "r-1", "--all")[0] == 3


def test_an_event_is_kept_once(journal: Journal) -> None:
    event = events.build(events.event_type("train", "succeeded"), "/s", {"n": 1}, id="e")
    journal.keep("t", event)
    event.data = {"n": 2}
    journal.keep("t", event)
    assert [kept.event.data for kept in journal.find()] == [{"n": 1}]
