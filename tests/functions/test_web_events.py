"""Events on pages: what tasks made known, chains as timelines, and what waits for an operator."""

from __future__ import annotations

import time

import pytest
import requests

from mlaas.journal import Journal
from mlaas.settings import Settings
from mlaas.testing.web_home import TOKEN
from mlaas.web import session as sessions

KNOWN = {"Authorization": f"Bearer {TOKEN}"}


def get(url: str, path: str) -> str:
    answer = requests.get(f"{url}/web/{path}", headers=KNOWN)
    assert answer.status_code == 200, answer.text
    return answer.text


def test_events_are_for_who_is_logged_in(web_url: str) -> None:
    for path in ("events", "events/chain?id=training-0.94", "events/parked"):
        assert (
            requests.get(f"{web_url}/web/{path}", allow_redirects=False).headers["Location"].startswith("/web/login?next=%2Fweb%2Fevents")
        )
    assert requests.post(f"{web_url}/web/events/replay", data={"id": "index-parked"}, allow_redirects=False).status_code == 303


def test_the_list_is_narrowed_by_type_and_task_and_says_which_types_there_are(web_url: str) -> None:
    assert "training-failed" in get(web_url, "events")
    failed = get(web_url, "events?type=train.failed")
    assert "training-failed" in failed
    assert "training-0.94" not in failed
    assert "No event fits" in get(web_url, "events?task=absent")
    assert "Give CAPABILITY or CAPABILITY.STATE" in get(web_url, "events?type=absent")


def test_a_chain_is_a_timeline_from_the_request_to_what_followed(web_url: str) -> None:
    page = get(web_url, "events/chain?id=training-0.94")
    order = [page.index(f'<li class="{state} d{depth}">') for state, depth in (("requested", 0), ("accepted", 0), ("succeeded", 1))]
    assert order == sorted(order)
    assert page.count("<strong>train</strong>") == 3
    assert page.count("<strong>index</strong>") == 2
    assert "&#34;correlationid&#34;: &#34;training-0.94&#34;" in page
    for id in ("absent", ""):
        assert requests.get(f"{web_url}/web/events/chain", params={"id": id}, headers=KNOWN).status_code == 404


def test_a_tasks_page_leads_to_its_chain(web_url: str, web_settings: Settings) -> None:
    from mlaas.documents import shared

    [kept] = Journal(shared()).find(type="train.failed")
    assert 'href="/web/events/chain?id=training-failed"' in get(web_url, f"tasks/{kept.task_id}")


def test_what_waits_has_its_reason_and_a_button_also_while_kafka_is_away(web_url: str) -> None:
    began = time.monotonic()
    page = get(web_url, "events/parked")
    assert time.monotonic() - began < 5  # nobody waits for a Kafka that does not answer
    assert 'data-load="/web/events/letters"' in page
    assert "The object store is away" in page
    assert "Replay the event when it is back." in page
    for path in ("events/letters", "events/parked?letters=1"):
        assert "no Kafka answers" in get(web_url, path)
    assert 'aria-label="Replay event index-parked"' in page


@pytest.mark.parametrize(("id", "status"), [("index-parked", 503)])
def test_a_replay_that_cannot_be_says_why(web_url: str, id: str, status: int) -> None:
    answer = requests.post(f"{web_url}/web/events/replay", data={"id": id}, headers=KNOWN, allow_redirects=False)
    assert answer.status_code == status
    assert "No Kafka answers" in answer.text
    assert "The object store is away" in answer.text  # the list is still there


def test_a_replay_needs_the_sessions_own_form(web_url: str, web_settings: Settings) -> None:
    browser = requests.Session()
    browser.get(f"{web_url}{sessions.invitation(web_settings)}")
    assert browser.post(f"{web_url}/web/events/replay", data={"id": "index-parked"}).status_code == 422
