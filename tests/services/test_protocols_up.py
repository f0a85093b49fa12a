"""The protocols at the one address of `mlaas up`, with their real clients; CloudEvents by the official SDK, over HTTP and over real Kafka."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import requests
import tritonclient.http as triton
from cloudevents import kafka as ce_kafka
from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent, from_http
from kafka import KafkaConsumer, KafkaProducer

from mlaas import events
from mlaas.catalog import usage
from mlaas.documents import connect
from mlaas.settings import load
from mlaas.testing.homes import tiny_home
from mlaas.testing.kafka import read
from mlaas.testing.processes import Up

pytestmark = pytest.mark.services

CLASSIFY = {"model": {"name": "infn-structures"}, "predict_input": {"input_text": ["INFN Frascati", "somewhere"]}}
GUIDE = Path(__file__).parents[2] / "docs" / "protocols.md"
LABELS = ["LNF", "[NoSite]"]
MODES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "binary": (to_binary, ce_kafka.to_binary),
    "structured": (to_structured, ce_kafka.to_structured),
}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    up = Up(tiny_home(tmp_path_factory.mktemp("protocols")).home)
    with up.running():
        yield up


def request(id: str, **more: str) -> CloudEvent:
    """A request as whoever knows nothing of the platform makes it with the SDK."""
    attributes = {"type": "it.infn.mlaas.classify.requested.v1", "source": "/sdk", "id": id, "datacontenttype": "application/json"}
    return CloudEvent({**attributes, **more}, CLASSIFY)


def check(reply: Any, id: str) -> None:
    assert (reply["type"], reply["causationid"]) == ("it.infn.mlaas.classify.succeeded.v1", id)
    assert reply["id"] == events.derived_id("/sdk", id, "classify", "succeeded")
    assert [one["label"] for one in reply.data["predictions"]] == LABELS


def test_what_was_asked_for_in_every_way_is_counted_after_some_seconds(up: Up) -> None:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["the higgs boson"]}
    own = {"model": {"name": "physics-ner"}, "predict_input": {"input_text": ["the higgs boson"]}}
    for path, body in (
        ("ner", own),
        ("v2/models/physics-ner/infer", {"inputs": [tensor]}),
        ("v1/embeddings", {"model": "minilm", "input": "x"}),
    ):
        assert requests.post(f"{up.url}/{path}", json=body, timeout=60).status_code == 200
    with closing(connect(load({"MLAAS_HOME": str(up.home)}).documents_url)) as documents:

        def counted() -> list[int]:
            return [usage.of(documents, "models", name).served for name in ("physics-ner", "minilm")]

        deadline = time.monotonic() + 30
        while counted() != [2, 1] and time.monotonic() < deadline:
            time.sleep(0.2)
        assert counted() == [2, 1]


@pytest.mark.parametrize("mode", MODES)
def test_an_event_of_the_sdk_by_http_is_answered_with_one_that_the_sdk_reads(up: Up, mode: str) -> None:
    headers, body = MODES[mode][0](request(f"http-{mode}", partitionkey="a task", subject="Università di Pisa"))
    answer = requests.post(f"{up.url}/classify", data=body, headers=headers, timeout=60)
    assert answer.status_code == 200
    reply = from_http(dict(answer.headers), answer.content)
    check(reply, f"http-{mode}")
    assert reply["partitionkey"] == "a task"


def test_events_of_the_sdk_in_kafka_and_at_the_broker_are_answered_in_kafka(up: Up) -> None:
    run, wanted = uuid.uuid4().hex, {f"{name}-{mode}" for name in ("kafka", "broker") for mode in MODES}
    with closing(KafkaProducer(bootstrap_servers=up.kafka)) as producer:
        for mode, (to_http, to_kafka) in MODES.items():
            message = to_kafka(request(f"{run}-kafka-{mode}", partitionkey="a task"))
            key = message.key.encode() if isinstance(message.key, str) else message.key
            written = {**message.headers, **({"content-type": b"application/cloudevents+json"} if mode == "structured" else {})}
            producer.send("mlaas.requests", value=message.value, key=key, headers=list(written.items())).get(30)
            headers, body = to_http(request(f"{run}-broker-{mode}"))
            assert requests.post(f"{up.url}/broker", data=body, headers=headers, timeout=30).status_code == 202
    deadline = time.monotonic() + 60
    with closing(
        KafkaConsumer("mlaas.events", bootstrap_servers=up.kafka, auto_offset_reset="earliest", enable_auto_commit=False)
    ) as consumer:
        while wanted and time.monotonic() < deadline:
            for record in (record for records in consumer.poll(timeout_ms=500).values() for record in records):
                message = ce_kafka.KafkaMessage(headers=dict(record.headers), key=record.key, value=record.value)
                reply: Any = ce_kafka.from_binary(message, data_unmarshaller=json.loads)
                cause = str(reply["causationid"])
                if cause.startswith(run):
                    check(reply, cause)
                    wanted.discard(cause.removeprefix(f"{run}-"))
    assert not wanted


def test_the_guides_program_for_kafka_prints_the_reply(up: Up) -> None:
    program = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)[-1]
    environment = {**os.environ, "MLAAS_KAFKA": up.kafka}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == f"it.infn.mlaas.classify.succeeded.v1 {LABELS}", done.stderr


def test_a_structured_event_whose_record_does_not_say_so_ends_in_the_dead_letters_with_the_remedy(up: Up) -> None:
    """As version 1 of the SDK writes it; Knative takes such a record for data, too."""
    message = ce_kafka.to_structured(request("unsaid"))
    with closing(KafkaProducer(bootstrap_servers=up.kafka)) as producer:
        producer.send("mlaas.requests", value=message.value, headers=list(message.headers.items())).get(30)
    (letter,) = read(up.kafka, "mlaas.dead-letters", lambda found: len(found) == 1)
    problem = json.loads(base64.b64decode(letter["knativeerrordata"]))
    assert (problem["status"], problem["field"]) == (400, "type")
    assert "application/cloudevents+json" in problem["remedy"]


def test_openais_client_and_tritons_find_every_model_at_one_address(up: Up) -> None:
    with openai.OpenAI(base_url=f"{up.url}/v1", api_key="none", timeout=60) as client:
        vector = client.embeddings.create(model="minilm", input="neutrino mass").data[0].embedding
    models = {"infn-structures": "text", "minilm": "text", "physics-lm": "text", "physics-ner": "text", "physics-writer": "text", "abstracts": "text", "laboratories": "question"}  # fmt: skip
    answers = {}
    with triton.InferenceServerClient(up.url.removeprefix("http://"), connection_timeout=60, network_timeout=60) as server:
        assert (server.is_server_live(), server.is_server_ready()) == (True, True)
        for name, first in models.items():
            assert server.is_model_ready(name)
            inputs = [triton.InferInput(one, [1], "BYTES") for one in (first, "context")[: 2 if first == "question" else 1]]
            for one in inputs:
                one.set_data_from_numpy(np.array(["the [MASK] boson in Frascati"], dtype=object))
            answers[name] = server.infer(name, inputs)
        with pytest.raises(Exception, match="404"):
            server.get_model_metadata("nobody")
    assert answers["infn-structures"].as_numpy("label").tolist() == [b"LNF"]
    assert answers["laboratories"].as_numpy("answer").tolist() == [b"Frascati"]
    assert answers["physics-lm"].as_numpy("filled").tolist() == [b"the higgs boson in Frascati"]
    assert (len(vector), answers["minilm"].as_numpy("embedding").shape) == (16, (1, 16))
