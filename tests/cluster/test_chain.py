"""The chain of events on a cluster: Kafka, KafkaSource, Broker, Triggers, functions and Jobs, and back to Kafka."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from mlaas import events
from mlaas.client import DEAD_LETTERS, EventClient
from mlaas.testing.cluster import Check, Cluster
from mlaas.testing.kafka import publish, read
from mlaas.testing.processes import until
from mlaas.testing.s3_server import BUCKET

Trainings = Callable[[str], list[dict[str, Any]]]
ASKED: dict[str, dict[str, Any]] = {
    "classify": {"model": {"name": "infn-structures"}, "predict_input": {"input_text": ["INFN Frascati"]}},
    "fill_mask": {"model": {"name": "physics-lm"}, "predict_input": {"input_text": ["the [MASK] boson was found"]}},
    "ner": {"model": {"name": "physics-ner"}, "predict_input": {"input_text": ["the higgs boson"]}},
    "answer": {
        "model": {"name": "laboratories"},
        "predict_input": {"question": ["Where is Frascati?"], "context": ["Frascati is near Rome."]},
    },
    "embed": {"model": {"name": "minilm"}, "predict_input": {"input_text": ["neutrino oscillations"]}},
    "generate": {"model": {"name": "physics-writer"}, "predict_input": {"input_text": ["the higgs"]}},
    "search": {"dataset": {"name": "abstracts"}, "search_input": {"input_text": ["neutrino oscillations"]}},
}
INDEX = {
    "model": {"name": "minilm"},
    "dataset": {
        "path": f"{BUCKET}/data/documents.jsonl",
        "storage_type": "s3",
        "loader_kwargs": {"page_content_column": "abstract", "id_column": "id"},
    },
    "vector_store_save": {"path": f"{BUCKET}/indexes/oscillations", "format": "vector_store", "storage_type": "s3"},
}


def training(name: str, epochs: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "model": {"path": f"{BUCKET}/checkpoints/birds", "storage_type": "s3", "objective": "text-classification"},
        "model_train": {"epochs": epochs, "batch_size": 16},
        "dataset": {"path": f"{BUCKET}/data/birds.jsonl", "storage_type": "s3", "train_test_split": 0.2},
        "model_save": {"path": f"{BUCKET}/models/{name}", "storage_type": "s3"},
        **more,
    }


def ended(client: EventClient, event: Any, seconds: float = 300) -> Any:
    """The event that ends the task which `event` asked for."""
    final = {events.event_type("train", state) for state in ("succeeded", "failed", "cancelled")}
    for one in client.watch(seconds=seconds):
        if one.get("correlationid") == event["id"] and one["type"] in final:
            return one
    raise AssertionError("the training did not end")


@pytest.mark.cluster("each function answers an event from Kafka, from zero")
def test_each_function_answers_an_event_from_zero(cluster: Cluster, events_of: EventClient, check: Check) -> None:
    asked = {name: events.new(name, request, source="/cluster") for name, request in ASKED.items()}
    for name in asked:
        cluster.wait_for_zero(name)
    started = time.monotonic()
    events_of.send(asked.values())
    replies = events_of.replies([event["id"] for event in asked.values()], seconds=240)
    for name, event in asked.items():
        reply = replies[event["id"]]
        assert reply["type"] == events.event_type(name, "succeeded"), reply.data
        assert reply["id"] == events.derived_id("/cluster", event["id"], name, "succeeded")
    check.measured(f"{len(asked)} functions at once in {time.monotonic() - started:.1f} s")


@pytest.mark.cluster("each function answers HTTP through the ingress")
@pytest.mark.parametrize("name", ASKED)
def test_each_function_answers_http(cluster: Cluster, name: str, check: Check) -> None:
    started = time.monotonic()
    answer = cluster.ask(name, ASKED[name])
    assert answer.status_code == 200, answer.text
    check.measured(f"{name}: {time.monotonic() - started:.2f} s")


@pytest.mark.cluster("bad input by HTTP gets a problem that names the field")
def test_bad_input_by_http_gets_a_problem_that_names_the_field(cluster: Cluster) -> None:
    answer = cluster.ask("classify", {"model": {"name": "infn-structures"}, "predict_input": {"input_text": 7}})
    assert answer.status_code == 422
    assert answer.json()["field"].startswith("predict_input.input_text")


@pytest.mark.cluster("the catalog over HTTP: nothing of the institute's without the token, every model with it")
def test_the_catalog_opens_with_its_token(cluster: Cluster, token: str) -> None:
    with cluster.session("catalog") as session:
        closed = session.get(f"{cluster.ingress}/v1/models", timeout=120)
        opened = session.get(f"{cluster.ingress}/v1/models", headers={"Authorization": f"Bearer {token}"}, timeout=120)
    assert closed.status_code == opened.status_code == 200
    assert "infn-structures" not in closed.text
    assert "infn-structures" in opened.text


@pytest.mark.cluster("train by event to a version, index by its success, search on it")
def test_a_training_by_event_builds_the_index_and_both_serve(cluster: Cluster, events_of: EventClient, check: Check) -> None:
    event = events.new("train", training("birds", index_after=[INDEX]), source="/cluster")
    events_of.send([event])
    assert ended(events_of, event)["type"] == events.event_type("train", "succeeded")
    built = next(
        one
        for one in events_of.watch(seconds=180)
        if one.get("correlationid") == event["id"]
        and one["type"] in (events.event_type("index", "succeeded"), events.event_type("index", "failed"))
    )
    assert built["type"] == events.event_type("index", "succeeded"), built.data
    label = cluster.ask("classify", {"model": {"name": "birds"}, "predict_input": {"input_text": ["the old robin near town"]}})
    assert label.json()["predictions"][0]["label"] in ("bird", "stone")
    found = cluster.ask(
        "search", {"dataset": {"name": "oscillations"}, "search_input": {"input_text": ["neutrino oscillations number 7"]}, "top_k": 1}
    )
    assert found.status_code == 200, found.text
    check.measured(f"training {built.data['stats']['elapsed']:.1f} s for the index; one trace: {_one_trace(cluster, event)}")


def _one_trace(cluster: Cluster, event: Any) -> bool:
    """Whether all events of the chain are in one trace, which the test fails without."""
    chain = [one for one in read(cluster.kafka, "mlaas.events", lambda found: len(found) > 3) if one.get("correlationid") == event["id"]]
    traces = {one["traceparent"].split("-")[1] for one in chain}
    assert len(traces) == 1, traces
    return True


@pytest.mark.cluster("the same events five times: the same reply, one task, one Job")
def test_redelivered_events_have_one_outcome(cluster: Cluster, events_of: EventClient, trainings_into: Trainings, check: Check) -> None:
    question = events.new("classify", ASKED["classify"], source="/cluster", id="five-questions")
    task = events.new("train", training("five"), source="/cluster", id="five-trainings")
    for _ in range(5):
        events_of.send([question, task])
    ids, states = Counter[str](), Counter[str]()
    deadline = time.monotonic() + 180
    for one in events_of.watch(seconds=180):
        if one.get("causationid") == "five-questions":
            ids[one["id"]] += 1
        if one.get("correlationid") == "five-trainings" and one["type"].startswith("it.infn.mlaas.train."):
            states[f"{one['type'].split('.')[-2]} {one['id']}"] += 1
        if (ids.total() >= 5 and any(state.startswith("succeeded") for state in states)) or time.monotonic() > deadline:
            break
    assert list(ids.values()) == [5]
    assert len({state for state in states if state.startswith("accepted")}) == 1
    assert len({state for state in states if state.startswith("succeeded")}) == 1
    assert len(trainings_into("five")) == 1
    jobs = [one for one in cluster.items("jobs") if one["status"].get("startTime")]
    check.measured(f"5 replies with one id; 1 task; {len(jobs)} Jobs in the namespace so far")


@pytest.mark.cluster("poison and records that are no CloudEvent end in the dead letters, with the reason")
def test_poison_ends_in_the_dead_letters_and_holds_up_nobody(cluster: Cluster, events_of: EventClient, check: Check) -> None:
    good = [events.new("classify", ASKED["classify"], source="/cluster", id=f"good-{number}") for number in range(10)]
    poison = b"\x00 no event"
    publish(cluster.kafka, "mlaas.requests", [*good[:5], poison, b"{", *good[5:]])
    replies = events_of.replies([event["id"] for event in good], seconds=120)
    assert len(replies) == 10
    letters = read(cluster.kafka, DEAD_LETTERS, lambda found: len(found) >= 2, timeout=120)
    assert all(letter.get("knativeerrorcode") == "400" for letter in letters), [dict(letter.get_attributes()) for letter in letters]
    check.measured(f"10 good events answered around 2 bad ones; {len(letters)} dead letters, code 400")


@pytest.mark.cluster("a training killed with -9 in the middle: one task, one success")
def test_a_killed_job_is_retried_and_ends_as_one_task(
    cluster: Cluster, events_of: EventClient, trainings_into: Trainings, check: Check
) -> None:
    event = events.new("train", training("killed", epochs=60), source="/cluster", id="killed-training")
    events_of.send([event])

    def begun() -> bool:
        tasks = trainings_into("killed")
        return bool(tasks) and tasks[0]["task_status"] == "running" and (tasks[0].get("progress") or {}).get("phase") == "train"

    until(begun, 120, "the training", every=0.2)
    (pod,) = [one["metadata"]["name"] for one in cluster.items("pods", "job-name") if one["status"]["phase"] == "Running"]
    how = cluster.kill(pod, "mlaas.training.job")
    done = ended(events_of, event)
    assert done["type"] == events.event_type("train", "succeeded"), done.data
    tasks = trainings_into("killed")
    assert len(tasks) == 1
    attempts = tasks[0]["stats"]["attempts"]
    assert attempts >= 2 or "deleted" in how  # a job that is told to stop gives its attempt back
    assert len(tasks[0]["history"]["loss"]) == 60, "a loss of every epoch, also of those before"
    check.measured(f"{how}; attempt {attempts} succeeded, {len(tasks)} task")
