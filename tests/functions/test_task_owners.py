"""Whose a task is: who sees it, its log and its events, and who cancels it, over REST and in the web app."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import requests

from mlaas import events, outbox, settings
from mlaas.documents import shared
from mlaas.tasks import Ownership, Tasks
from mlaas.testing.local_issuer import LocalIssuer

OWNERS = {"of-ada": "ada", "of-bob": "bob", "of-physics": "group:physics", "of-nobody": None}


@pytest.fixture
def who(configured: Callable[..., None], issuer: LocalIssuer) -> Callable[..., dict[str, str]]:
    """The headers of a user, who is in these groups as well."""

    def headers(sub: str, *groups: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {issuer.token(sub=sub, groups=list(groups) or ['ml-users'])}"}

    return headers


@pytest.fixture
def ids(who: Callable[..., dict[str, str]]) -> dict[str, str]:
    """A waiting task of each of OWNERS, whose accepted event is kept."""
    tasks, made = Tasks(shared()), {}
    for name, owner in OWNERS.items():
        cause = events.new("train", {}, id=name)
        accepted = tasks.accept("train", {"n": name}, cause, publish=True, ownership=Ownership(owner, "somebody"))
        made[name] = str(accepted["subject"])
    outbox.flush(tasks, settings.current(), publish=lambda event, settings: None)
    return made


@pytest.fixture
def url(ids: dict[str, str], served: Callable[[str], str]) -> str:
    return served("catalog")


@pytest.mark.parametrize(
    ("token", "seen"),
    [
        (("ada",), {"of-ada"}),
        (("ada", "ml-users", "physics"), {"of-ada", "of-physics"}),
        (("physics",), set()),
        (("root", "ml-admins"), set(OWNERS)),
    ],
)
def test_a_user_sees_the_tasks_and_events_of_their_own_and_their_groups(
    url: str, ids: dict[str, str], who: Callable[..., dict[str, str]], token: tuple[str, ...], seen: set[str]
) -> None:
    headers = who(*token)
    listed = requests.get(f"{url}/v1/tasks", headers=headers).json()["items"]
    assert {one["request"]["n"] for one in listed} == seen
    told = requests.get(f"{url}/v1/events", headers=headers).json()["items"]
    assert {one["task_id"] for one in told} == {ids[name] for name in seen}
    page = requests.get(f"{url}/web/tasks", headers=headers).text
    told_page = requests.get(f"{url}/web/events", headers=headers).text
    for name, task_id in ids.items():
        there = name in seen
        assert requests.get(f"{url}/v1/tasks/{task_id}", headers=headers).status_code == (200 if there else 404), name
        assert bool(requests.get(f"{url}/v1/events?task={task_id}", headers=headers).json()["items"]) == there
        assert (task_id in page, task_id in told_page) == (there, there)
        for path in (f"tasks/{task_id}", f"tasks/{task_id}/live", f"events/chain?id={name}", f"demo/{task_id}"):
            assert requests.get(f"{url}/web/{path}", headers=headers).status_code == (200 if there else 404), path


def test_what_is_hidden_and_what_is_not_there_are_told_in_the_same_words(
    url: str, ids: dict[str, str], who: Callable[..., dict[str, str]]
) -> None:
    hidden, absent = (requests.get(f"{url}/v1/tasks/{one}", headers=who("ada")).json() for one in (ids["of-bob"], "absent"))
    assert hidden == absent


def test_a_user_cancels_what_is_theirs_or_their_groups_and_nothing_else(
    url: str, ids: dict[str, str], who: Callable[..., dict[str, str]]
) -> None:
    def cancelled(name: str, *token: str) -> int:
        return requests.post(f"{url}/v1/tasks/{ids[name]}/cancel", headers=who(*token)).status_code

    assert [cancelled(name, "ada") for name in ("of-bob", "of-physics", "of-nobody")] == [404] * 3
    assert cancelled("of-ada", "ada", "nobody-special") == 403, "a reader changes nothing"
    assert requests.post(f"{url}/web/tasks/{ids['of-bob']}/cancel", headers=who("ada")).status_code == 404
    assert Tasks(shared()).counts()["cancelled"] == 0
    assert cancelled("of-ada", "ada") == 200
    assert cancelled("of-physics", "eve", "ml-users", "physics") == 200
    assert requests.post(f"{url}/web/tasks/{ids['of-bob']}/cancel", headers=who("bob"), allow_redirects=False).status_code == 303
    assert cancelled("of-nobody", "root", "ml-admins") == 200
    changes = requests.get(f"{url}/v1/audit", headers=who("root", "ml-admins")).json()["items"]
    told = {(one["subject"], one["operation"], one["target"], one["outcome"]) for one in changes}
    assert {
        ("ada", "cancelTask", ids["of-bob"], "refused"),
        ("ada", "cancelTask", ids["of-ada"], "succeeded"),
        ("eve", "cancelTask", ids["of-physics"], "succeeded"),
    } <= told
    assert ("bob", "web.cancel", "succeeded") in {(one["subject"], one["operation"], one["outcome"]) for one in changes}


def test_what_waits_for_an_operator_stays_with_administrators(url: str, who: Callable[..., dict[str, str]]) -> None:
    assert requests.get(f"{url}/web/events/parked", headers=who("ada")).status_code == 403
    assert requests.post(f"{url}/web/events/replay", headers=who("ada")).status_code == 403
    assert "/web/events/parked" not in requests.get(f"{url}/web/events", headers=who("ada")).text
