"""Bad input: each request of the documented list gets its documented answer, by HTTP and as an event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mlaas import events
from mlaas.documents import shared
from mlaas.tasks import Tasks
from mlaas.testing.bad_input import CASES, Case

Client = Callable[[str], Any]


def name(case: Case) -> str:
    return case.what.replace(" ", "_")


def assert_is_the_problem(case: Case, problem: dict[str, Any]) -> None:
    assert problem["status"] == case.status
    assert problem.get("field") == case.where
    assert problem["detail"]
    assert problem["remedy"]
    assert problem["type"].startswith("urn:mlaas:problem:")
    text = str(problem)
    assert not any(leak in text for leak in ("Traceback", "/tmp", "Error(", "site-packages", "errno"))


def test_there_are_more_than_thirty_of_them() -> None:
    assert len({case.what for case in CASES}) == len(CASES) > 30


@pytest.mark.parametrize("case", [case for case in CASES if case.event_status == 200], ids=name)
def test_by_http_it_is_a_problem_that_names_the_field_and_the_remedy(client_of: Client, case: Case) -> None:
    answer = client_of(case.function).post("/", data=case.body, headers={"Content-Type": "application/json"})
    assert answer.status_code == case.status
    assert answer.content_type == "application/problem+json"
    assert_is_the_problem(case, answer.json)
    assert Tasks(shared()).find()[0] == []


@pytest.mark.parametrize("case", CASES, ids=name)
def test_as_an_event_it_is_a_failure_that_the_sender_gets_or_a_status_that_the_broker_keeps(client_of: Client, case: Case) -> None:
    headers = {key: value for key, value in case.binary.items() if value}
    answer = client_of(case.function).post("/", data=case.body, headers=headers)
    assert answer.status_code == case.event_status
    if case.event_status != 200:
        assert_is_the_problem(case, answer.json)
        return
    reply = events.from_request(dict(answer.headers), answer.data)
    assert reply["type"] == events.event_type(case.function, "failed")
    assert reply["causationid"] == "bad-1"
    expected = case if case.where != "$" or case.status != 400 else Case(what="", function="", body=b"", status=422, where="$")
    assert_is_the_problem(expected, reply.data)
    assert Tasks(shared()).find()[0] == []


def test_a_failure_has_the_same_id_each_time(client_of: Client) -> None:
    case = next(case for case in CASES if case.what == "an unknown model")
    answers = [client_of(case.function).post("/", data=case.body, headers=case.binary) for _ in range(3)]
    assert len({answer.headers["ce-id"] for answer in answers}) == 1


def test_a_defect_gets_a_fixed_text_and_an_error_id_and_the_log_has_the_cause(
    client_of: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlaas import classifier

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret /etc/passwd")

    monkeypatch.setattr(classifier, "classify", broken)
    case = Case(
        what="",
        function="classify",
        body=b'{"model": {"name": "infn-structures"}, "predict_input": {"input_text": ["private text"]}}',
        status=500,
        where=None,
    )
    for headers in ({"Content-Type": "application/json"}, case.binary):
        answer = client_of("classify").post("/", data=case.body, headers=headers)
        assert answer.status_code == 500
        assert "secret" not in answer.text
        record = next(record for record in caplog.records if getattr(record, "fields", {}).get("error_id") == answer.json["error_id"])
        assert "secret" in str(record.exc_info[1])
    assert "private text" not in caplog.text


def test_a_store_that_is_away_is_not_now_with_retry_after_also_for_events(client_of: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlaas import models
    from mlaas.errors import Unavailable

    def away(*_: Any, **__: Any) -> None:
        raise Unavailable("the document store cannot be used now", retry_after=7)

    monkeypatch.setattr(models, "load", away)
    case = next(case for case in CASES if case.what == "an unknown model")
    for headers in ({"Content-Type": "application/json"}, case.binary):
        answer = client_of("classify").post("/", data=case.body, headers=headers)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
