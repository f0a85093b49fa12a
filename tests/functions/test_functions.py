"""Each function under its own server and under plain parliament: events and JSON in, events and JSON out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlaas import events
from mlaas.documents import shared
from mlaas.tasks import Tasks

FUNCTIONS = Path(__file__).parent.parent.parent / "functions"
REFERENCE = FUNCTIONS.parent / "docs" / "reference"
Client = Callable[[str], Any]

REQUESTS: dict[str, dict[str, Any]] = {
    "classify": {"model": {"name": "infn-structures"}, "predict_input": {"input_text": ["INFN Frascati", "somewhere"]}, "top_k": 2},
    "fill_mask": {
        "model": {"name": "physics-lm"},
        "predict_input": {"input_text": ["the [MASK] boson was [MASK] at the large [MASK] collider"]},
    },
    "ner": {"model": {"name": "physics-ner"}, "predict_input": {"input_text": ["The Higgs boson was found at the Large Hadron Collider."]}},
    "answer": {
        "model": {"name": "laboratories"},
        "predict_input": {"question": ["Where is the laboratory?"], "context": ["The laboratory is in Frascati, near the town."]},
    },
    "embed": {"model": {"name": "minilm"}, "predict_input": {"input_text": ["neutrino mass", "dark matter"]}},
    "generate": {"model": {"name": "physics-writer"}, "predict_input": {"input_text": ["dark"]}},
    "search": {"dataset": {"name": "abstracts"}, "search_input": {"input_text": ["neutrino mass"]}, "top_k": 2},
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
FIRST = {name: "accepted" if name in ("index", "train") else "succeeded" for name in REQUESTS}


def binary(capability: str, id: str = "r-1", **more: str) -> dict[str, str]:
    return {
        "ce-specversion": "1.0",
        "ce-id": id,
        "ce-source": "/test",
        "ce-type": events.event_type(capability, "requested"),
        "Content-Type": "application/json",
        **more,
    }


def send(client: Any, capability: str, data: Any = None, **headers: str) -> Any:
    return client.post("/", data=json.dumps(REQUESTS[capability] if data is None else data), headers=binary(capability, **headers))


@pytest.mark.parametrize("capability", REQUESTS)
def test_a_binary_event_is_answered_with_an_event(client_of: Client, capability: str) -> None:
    answer = send(client_of(capability), capability)
    assert answer.status_code == 200
    reply = events.from_request(dict(answer.headers), answer.data)
    assert reply["type"] == events.event_type(capability, FIRST[capability])
    assert reply["causationid"] == "r-1"
    assert reply["id"] == events.derived_id(
        "/test", "r-1", capability, FIRST[capability], *([""] if FIRST[capability] == "accepted" else [])
    )


@pytest.mark.parametrize("capability", REQUESTS)
def test_a_structured_event_gets_the_same_reply_as_a_binary_one(client_of: Client, capability: str) -> None:
    client = client_of(capability)
    document = {
        "specversion": "1.0",
        "id": "r-1",
        "source": "/test",
        "type": events.event_type(capability, "requested"),
        "data": REQUESTS[capability],
    }
    structured = client.post("/", data=json.dumps(document), headers={"Content-Type": "application/cloudevents+json"})
    plain = send(client, capability)
    assert structured.headers["ce-id"] == plain.headers["ce-id"]
    assert structured.json == plain.json


@pytest.mark.parametrize("capability", REQUESTS)
def test_plain_json_is_answered_with_json(client_of: Client, capability: str) -> None:
    answer = client_of(capability).post("/", json=REQUESTS[capability])
    assert answer.status_code == (202 if FIRST[capability] == "accepted" else 200)
    assert answer.content_type == "application/json"
    assert not any(name.lower().startswith("ce-") for name, _ in answer.headers)


@pytest.mark.parametrize("capability", REQUESTS)
def test_get_serves_the_schemas_and_the_event_types(client_of: Client, capability: str) -> None:
    described = client_of(capability).get("/").json
    assert events.event_type(capability, "requested") in described["takes"]
    assert set(REQUESTS[capability]) <= set(described["request"]["properties"])
    assert described["reply"]["properties"]
    for part in ("request", "reply"):
        assert described[part] == json.loads((REFERENCE / f"{capability}.{part}.schema.json").read_text())


def test_the_answers_are_right(client_of: Client) -> None:
    classified = client_of("classify").post("/", json=REQUESTS["classify"]).json
    assert [one["label"] for one in classified["predictions"]] == ["LNF", "[NoSite]"]
    assert [len(one["scores"]) for one in classified["predictions"]] == [2, 2]
    filled = client_of("fill_mask").post("/", json=REQUESTS["fill_mask"]).json["predictions"][0]
    assert filled["filled"] == "the higgs boson was found at the large hadron collider"
    assert [len(one) for one in filled["masks"]] == [5, 5, 5]
    entities = client_of("ner").post("/", json=REQUESTS["ner"]).json["predictions"][0]["entities"]
    assert [(one["text"], one["label"], one["start"], one["end"]) for one in entities] == [
        ("Higgs boson", "PARTICLE", 4, 15),
        ("Large Hadron Collider", "FACILITY", 33, 54),
    ]
    answered = client_of("answer").post("/", json=REQUESTS["answer"]).json["predictions"][0]
    assert (answered["answer"], answered["start"], answered["end"]) == ("Frascati", 21, 29)
    embedded = client_of("embed").post("/", json=REQUESTS["embed"]).json
    assert (embedded["dimension"], [len(one) for one in embedded["vectors"]], embedded["truncated"]) == (16, [16, 16], [False, False])
    written = client_of("generate").post("/", json=REQUESTS["generate"]).json["predictions"][0]
    assert written == {"text": " matter interacts through gravity", "tokens": 4, "finish": "end"}
    found = client_of("search").post("/", json=REQUESTS["search"]).json["results"][0]
    assert found[0]["id"] == "syn-2"
    assert found[0]["metadata"] == {"field": "hep-ph"}
    assert found[0]["score"] < found[1]["score"]


@pytest.mark.parametrize("capability", ["classify", "fill_mask", "ner", "answer", "embed", "generate", "search"])
def test_a_reply_says_which_model_version_answered_and_where_the_time_went(client_of: Client, capability: str) -> None:
    client = client_of(capability)
    answer = client.post("/", json=REQUESTS[capability])
    assert answer.json["model"]["version"] == "1"
    assert len(answer.json["model"]["digest"]) == 64
    assert all(f"{part};dur=" in answer.headers["Server-Timing"] for part in ("load", "tokenize", "infer"))
    assert "infer;dur=" in send(client, capability).headers["ce-servertiming"]


@pytest.mark.parametrize("capability", ["index", "train"])
def test_a_redelivered_event_makes_one_task_and_gives_the_same_reply(client_of: Client, capability: str) -> None:
    client = client_of(capability)
    answers = [send(client, capability) for _ in range(5)]
    assert len({(answer.headers["ce-id"], answer.data) for answer in answers}) == 1
    assert len(Tasks(shared()).find()[0]) == 1
    assert list(Tasks(shared()).owed()) == []


def test_an_http_request_with_the_same_idempotency_key_makes_one_task_which_owes_its_event(client_of: Client) -> None:
    client = client_of("train")
    answers = [client.post("/", json=REQUESTS["train"], headers={"Idempotency-Key": "k"}).json["task_id"] for _ in range(3)]
    assert len(set(answers)) == 1
    assert [event["type"] for _, event in Tasks(shared()).owed()] == ["it.infn.mlaas.train.accepted.v1"]


def test_a_training_that_succeeded_makes_an_index_build_for_what_it_names_and_for_what_follows_its_model(client_of: Client) -> None:
    from mlaas.catalog import Catalog

    Catalog(shared()).publish(
        "indexes",
        "follower",
        "d",
        {
            "model_name": "infn-structures",
            "request": {**REQUESTS["index"], "model": {"name": "infn-structures"}, "vector_store_save": {"path": "indexes/follower"}},
        },
    )
    after = [{"dataset": {"path": "affiliations.tsv"}, "vector_store_save": {"path": "indexes/asked"}}]
    task = {"task_id": "t", "request": {"index_after": after}, "result": {"model": {"name": "infn-structures", "version": "1"}}}
    headers = binary("train", id="done") | {"ce-type": events.event_type("train", "succeeded"), "ce-correlationid": "first"}
    client = client_of("index")
    for _ in range(3):
        assert client.post("/", data=json.dumps(task), headers=headers).status_code == 204
    owed = [event for _, event in Tasks(shared()).owed()]
    assert len(owed) == 2
    assert {event.data["request"]["vector_store_save"]["path"] for event in owed} == {"indexes/asked", "indexes/follower"}
    assert {event["causationid"] for event in owed} == {"done"}
    assert {event["correlationid"] for event in owed} == {"first"}
    assert len({event["id"] for event in owed}) == 2
    asked = next(event for event in owed if event.data["request"]["vector_store_save"]["path"] == "indexes/asked")
    assert asked.data["request"]["model"]["name"] == "infn-structures"
    assert "revision" not in asked.data["request"]["model"]  # so that it follows the next training as well


def test_an_index_of_another_model_is_refused_with_the_reason(client_of: Client) -> None:
    answer = client_of("search").post("/", json=REQUESTS["search"] | {"model": {"name": "infn-structures"}})
    assert answer.status_code == 422
    assert "another model" in answer.json["detail"]


def test_an_id_that_no_header_can_carry_comes_back_in_a_structured_reply(client_of: Client) -> None:
    kind = events.event_type("classify", "requested")
    document = {"specversion": "1.0", "id": "richiesta perché\nno", "source": "/test", "type": kind, "data": REQUESTS["classify"]}
    answer = client_of("classify").post("/", data=json.dumps(document), headers={"Content-Type": "application/cloudevents+json"})
    assert answer.status_code == 200
    assert events.from_request(dict(answer.headers), answer.data)["causationid"] == "richiesta perché\nno"


def test_a_request_is_long_work_where_it_refers_to_a_file_and_a_redelivery_gives_the_same_reply(client_of: Client) -> None:
    rows = {"path": "affiliations.tsv", "loader_kwargs": {"page_content_column": "affiliation"}}
    request = {"model": {"name": "infn-structures"}, "predict_input": {"dataset": rows}}
    client = client_of("classify")
    answers = [send(client, "classify", request) for _ in range(3)]
    assert {answer.headers["ce-type"] for answer in answers} == {"it.infn.mlaas.classify.accepted.v1"}
    assert len({(answer.headers["ce-id"], answer.data) for answer in answers}) == 1
    by_http = client.post("/", json=request, headers={"Idempotency-Key": "k"})
    assert (by_http.status_code, by_http.json["capability"], by_http.json["task_status"]) == (202, "classify", "accepted")
    assert [event["type"] for _, event in Tasks(shared()).owed()] == ["it.infn.mlaas.classify.accepted.v1"]
    assert len(Tasks(shared()).find()[0]) == 2
    assert "it.infn.mlaas.classify.accepted.v1" in client.get("/").json["gives"]


@pytest.mark.parametrize("structured", [False, True])
def test_an_event_over_256_kib_is_refused_with_a_reply_where_http_takes_as_much(client_of: Client, structured: bool) -> None:
    request = REQUESTS["classify"] | {"predict_input": {"input_text": ["x" * 90_000] * 3}}
    client = client_of("classify")
    assert client.post("/", json=request).status_code == 200
    if structured:
        document = {
            "specversion": "1.0",
            "id": "r-1",
            "source": "/test",
            "type": events.event_type("classify", "requested"),
            "data": request,
        }
        answer = client.post("/", data=json.dumps(document), headers={"Content-Type": "application/cloudevents+json"})
    else:
        answer = send(client, "classify", request)
    assert (answer.status_code, answer.headers["ce-type"]) == (200, "it.infn.mlaas.classify.failed.v1")
    assert (answer.json["status"], answer.json["type"]) == (413, "urn:mlaas:problem:too-large")
    assert "mlaas classify --file" in answer.json["remedy"]


def test_a_reply_that_is_too_large_for_an_event_carries_a_reference_and_http_all_of_it(client_of: Client) -> None:
    from mlaas import references
    from mlaas.settings import current

    request = REQUESTS["classify"] | {"predict_input": {"input_text": ["INFN Frascati"] * 2000}, "top_k": 4}
    client = client_of("classify")
    answers = [send(client, "classify", request) for _ in range(2)]
    assert len({(answer.headers["ce-id"], answer.data) for answer in answers}) == 1
    assert len(answers[0].data) < 1000
    event = events.from_request(dict(answers[0].headers), answers[0].data)
    assert event["dataref"].startswith("local:exchange/replies/")
    whole = references.resolved(event, current()).data
    assert len(whole["predictions"]) == 2000
    assert whole == client.post("/", json=request).json


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in FUNCTIONS.glob("*/func.py")))
def test_a_function_is_thin_and_complete(folder: str) -> None:
    lines = (FUNCTIONS / folder / "func.py").read_text().splitlines()
    assert len(lines) < 40
    assert any(line.startswith("def main(context") for line in lines)
    assert {path.name for path in (FUNCTIONS / folder).iterdir() if path.name != "__pycache__"} == {"func.py", "func.yaml", "README.md"}
