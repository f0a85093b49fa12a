"""Events for train and index that cannot be done now, for ever, five times at once, or after a restart."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mlaas import documents, events, models
from mlaas.catalog import Catalog
from mlaas.documents import shared
from mlaas.errors import Unavailable
from mlaas.ledger import Ledger
from mlaas.tasks import Tasks

Client = Callable[[str], Any]
LIMIT = 5
REQUESTS: dict[str, dict[str, Any]] = {
    "classify": {"model": {"name": "infn-structures"}, "predict_input": {"input_text": ["INFN Frascati"]}},
    "index": {
        "model": {"name": "minilm"},
        "dataset": {"path": "affiliations.tsv", "loader_kwargs": {"page_content_column": "affiliation"}},
        "vector_store_save": {"path": "indexes/affiliations"},
    },
    "train": {
        "model": {"path": "checkpoints/tiny", "objective": "text-classification"},
        "dataset": {"path": "affiliations.tsv"},
        "model_save": {"path": "models/new"},
    },
}


def binary(capability: str, id: str = "r-1") -> dict[str, str]:
    kind = events.event_type(capability, "requested")
    return {"ce-specversion": "1.0", "ce-id": id, "ce-source": "/test", "ce-type": kind, "Content-Type": "application/json"}


def send(client: Any, capability: str, data: Any = None, id: str = "r-1") -> Any:
    return client.post("/", data=json.dumps(data or REQUESTS[capability]), headers=binary(capability, id))


def succeeded(id: str = "done") -> dict[str, str]:
    return binary("train", id=id) | {"ce-type": events.event_type("train", "succeeded")}


TASK = {"task_id": "t", "request": {}, "result": {"model": {"name": "infn-structures", "version": "1"}}}


@pytest.fixture
def follower(home: Any) -> None:
    request = {**REQUESTS["index"], "model": {"name": "infn-structures"}, "vector_store_save": {"path": "indexes/follower"}}
    Catalog(shared()).publish("indexes", "follower", "d", {"model_name": "infn-structures", "request": request})


def away(*_: Any, **__: Any) -> None:
    raise Unavailable("the object store is away", field="model.path", remedy="Wait.")


@pytest.mark.parametrize("capability", ["index", "train"])
def test_a_request_that_cannot_be_served_for_long_is_parked_and_its_sender_told(
    client_of: Client, capability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(capability)
    with monkeypatch.context() as patch:
        patch.setattr(models, "check", away)
        for _ in range(LIMIT):
            answer = send(client, capability)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        parked = [send(client, capability) for _ in range(3)]
    parked.append(send(client, capability))  # the store is back, but only an operator brings the event back
    assert {answer.status_code for answer in parked} == {200}
    assert len({(answer.headers["ce-id"], answer.data) for answer in parked}) == 1
    assert parked[0].headers["ce-type"] == events.event_type(capability, "failed")
    assert parked[0].json["status"] == 503
    assert parked[0].json["remedy"] == "An operator replays it with `mlaas events replay r-1`."
    assert Tasks(shared()).find()[0] == []
    [entry] = Ledger(shared()).parked()
    Ledger(shared()).replay(entry.key)
    assert send(client, capability).headers["ce-type"] == events.event_type(capability, "accepted")
    assert len(Tasks(shared()).find()[0]) == 1


def test_a_followed_event_that_cannot_be_followed_is_parked_and_acknowledged(
    client_of: Client, monkeypatch: pytest.MonkeyPatch, follower: None
) -> None:
    client = client_of("index")

    def follow() -> int:
        return client.post("/", data=json.dumps(TASK), headers=succeeded()).status_code

    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "followers", away)
        assert [follow() for _ in range(LIMIT + 2)] == [503] * LIMIT + [204, 204]
    assert list(Tasks(shared()).owed()) == []
    [entry] = Ledger(shared()).parked()
    Ledger(shared()).replay(entry.key)
    assert [follow(), follow()] == [204, 204]
    assert len(list(Tasks(shared()).owed())) == 1


def test_a_defect_is_parked_with_the_error_id_that_the_log_has(
    client_of: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret /etc/passwd")

    monkeypatch.setattr(models, "check", broken)
    client = client_of("train")
    answers = [send(client, "train") for _ in range(LIMIT)]
    assert {answer.status_code for answer in answers} == {500}
    parked = send(client, "train")
    assert parked.json["error_id"] == answers[-1].json["error_id"]
    assert "secret" not in parked.text
    assert answers[-1].json["error_id"] in [getattr(record, "fields", {}).get("error_id") for record in caplog.records]


def test_a_refusal_stays_the_answer_of_its_event_also_when_the_model_came_later(client_of: Client) -> None:
    absent = {**REQUESTS["index"], "model": {"name": "later"}}
    client = client_of("index")
    first = send(client, "index", absent)
    assert first.headers["ce-type"] == events.event_type("index", "failed")
    entry = Catalog(shared()).resolve("models", "minilm")
    Catalog(shared()).publish("models", "later", "d", {name: entry[name] for name in ("path", "storage_type", "objective")})
    again = send(client, "index", absent)
    assert (again.headers["ce-id"], again.headers["ce-time"], again.data) == (first.headers["ce-id"], first.headers["ce-time"], first.data)
    assert send(client, "index", absent, id="r-2").headers["ce-type"] == events.event_type("index", "accepted")


def _restart() -> None:
    shared().close()
    documents._shared.cache_clear()


@pytest.mark.parametrize("capability", ["index", "train"])
def test_a_request_delivered_five_times_at_once_and_after_a_restart_makes_one_task_and_gives_one_reply(
    client_of: Client, capability: str
) -> None:
    with ThreadPoolExecutor(5) as pool:
        clients = [client_of(capability) for _ in range(5)]
        answers = list(pool.map(lambda client: send(client, capability), clients))
    _restart()
    answers.append(send(client_of(capability), capability))
    assert len({(answer.headers["ce-id"], answer.headers["ce-time"], answer.data) for answer in answers}) == 1
    assert len(Tasks(shared()).find()[0]) == 1


def test_a_success_followed_five_times_at_once_and_after_a_restart_makes_one_build(client_of: Client, follower: None) -> None:
    clients = [client_of("index") for _ in range(5)]
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda client: client.post("/", data=json.dumps(TASK), headers=succeeded()), clients))
    _restart()
    answers.append(client_of("index").post("/", data=json.dumps(TASK), headers=succeeded()))
    assert {answer.status_code for answer in answers} == {204}
    assert len(list(Tasks(shared()).owed())) == 1


def test_while_the_document_store_is_away_nothing_is_done_and_the_broker_is_told_to_try_again(
    client_of: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of("index")
    with monkeypatch.context() as patch:
        patch.setattr(type(shared()), "get", away)
        assert [send(client, "index").status_code for _ in range(LIMIT + 3)] == [503] * (LIMIT + 3)
    assert send(client, "index").headers["ce-type"] == events.event_type("index", "accepted")


def test_a_pure_function_keeps_no_ledger(client_of: Client) -> None:
    send(client_of("classify"), "classify")
    assert Ledger(shared()).get("r-1") == []


def test_following_is_counted_by_the_index_function_for_itself(client_of: Client, follower: None) -> None:
    client_of("index").post("/", data=json.dumps(TASK), headers=succeeded())
    assert [(entry.capability, entry.status) for entry in Ledger(shared()).get("done")] == [("index", "done")]
