"""Tasks and their events over real HTTP: who sees them, who cancels them, and how they are paged."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import requests

from mlaas import events, settings
from mlaas.documents import shared
from mlaas.journal import Journal
from mlaas.settings import Settings
from mlaas.tasks import Tasks

TOKEN = {"Authorization": "Bearer secret-of-the-test"}


@pytest.fixture
def ids(home: Settings, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("MLAAS_TOKEN", "secret-of-the-test")
    settings.current.cache_clear()
    accepted = [Tasks(shared()).accept("train", {"n": n}, events.new("train", {}, id=f"t-{n}"), publish=False) for n in range(3)]
    for event in accepted:
        Journal(shared()).keep(str(event["subject"]), event)
    return [str(event["subject"]) for event in accepted]


@pytest.fixture
def url(ids: list[str], served: Callable[[str], str]) -> str:
    return served("catalog")


def test_tasks_are_listed_newest_first_in_pages_and_one_is_shown(url: str, ids: list[str]) -> None:
    first = requests.get(f"{url}/v1/tasks?limit=2", headers=TOKEN)
    second = requests.get(f"{url}{first.links['next']['url']}", headers=TOKEN).json()
    assert [one["task_id"] for one in first.json()["items"] + second["items"]] == ids[::-1]
    shown = requests.get(f"{url}/v1/tasks/{ids[0]}", headers=TOKEN).json()
    assert (shown["task_status"], shown["request"]) == ("accepted", {"n": 0})
    assert requests.get(f"{url}/v1/tasks?status=running", headers=TOKEN).json()["items"] == []
    assert requests.get(f"{url}/v1/tasks/nobody", headers=TOKEN).status_code == 404


def test_a_task_is_cancelled_once(url: str, ids: list[str]) -> None:
    assert requests.post(f"{url}/v1/tasks/{ids[1]}/cancel", headers=TOKEN).json()["task_status"] == "cancelled"
    assert requests.post(f"{url}/v1/tasks/{ids[1]}/cancel", headers=TOKEN).status_code == 422
    assert Tasks(shared()).get(ids[1])["task_status"] == "cancelled"


def test_events_are_found_by_task_type_and_time(url: str, ids: list[str]) -> None:
    of_one = requests.get(f"{url}/v1/events?task={ids[2]}", headers=TOKEN).json()["items"]
    assert [one["event"]["data"]["task_id"] for one in of_one] == [ids[2]]
    assert len(requests.get(f"{url}/v1/events?type=train.accepted&since=2020-01-01T00:00:00%2B02:00", headers=TOKEN).json()["items"]) == 3
    assert requests.get(f"{url}/v1/events?until=2020-01-01T00:00:00Z", headers=TOKEN).json()["items"] == []


@pytest.mark.parametrize("path", ["tasks", "tasks/{0}", "events", "tasks/{0}/cancel"])
def test_who_has_no_token_sees_no_task_and_cancels_none(url: str, ids: list[str], path: str) -> None:
    where = f"{url}/v1/{path.format(ids[0])}"
    answer = requests.post(where) if path.endswith("cancel") else requests.get(where)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert Tasks(shared()).get(ids[0])["task_status"] == "accepted"


@pytest.mark.parametrize(
    ("query", "field"), [("tasks?cursor=x", "cursor"), ("events?since=noon", "since"), ("events?type=weather", "type")]
)
def test_what_cannot_be_asked_is_refused_with_its_field(url: str, query: str, field: str) -> None:
    answer = requests.get(f"{url}/v1/{query}", headers=TOKEN)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
