"""Ask at MLAAS and over MLAAS_KAFKA with version 2 of the official SDK of CloudEvents; what it was answered, as JSON."""

import json
import os
import time
import uuid

import requests
from cloudevents.core.bindings import http, kafka
from cloudevents.core.v1.event import CloudEvent
from kafka import KafkaConsumer, KafkaProducer

DATA = {"model": {"name": "infn-structures"}, "predict_input": {"input_text": ["INFN Frascati", "somewhere"]}}
URL, BOOTSTRAP = os.environ["MLAAS"], os.environ["MLAAS_KAFKA"]


def request(id: str) -> CloudEvent:
    attributes = {
        "specversion": "1.0",
        "id": id,
        "source": "/sdk/2",
        "type": "it.infn.mlaas.classify.requested.v1",
        "datacontenttype": "application/json",
        "partitionkey": "a task",
    }
    return CloudEvent(attributes, DATA)


def labels(event: CloudEvent) -> list[str]:
    data = event.get_data()
    return [one["label"] for one in (json.loads(data) if isinstance(data, bytes | str) else data)["predictions"]]


def main() -> None:
    answers = {}
    for mode, to_http in (("binary", http.to_binary_event), ("structured", http.to_structured_event)):
        message = to_http(request(f"http-{mode}"))
        answer = requests.post(f"{URL}/classify", data=message.body, headers=message.headers, timeout=60)
        reply = http.from_http_event(http.HTTPMessage(headers=dict(answer.headers), body=answer.content))
        assert reply.get_extension("causationid") == f"http-{mode}"
        answers[f"http {mode}"] = labels(reply)
    run = uuid.uuid4().hex
    consumer = KafkaConsumer("mlaas.events", bootstrap_servers=BOOTSTRAP, auto_offset_reset="earliest", group_id=None)
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP)
    for mode, to_kafka in (("binary", kafka.to_binary_event), ("structured", kafka.to_structured_event)):
        message = to_kafka(request(f"{run}-{mode}"))
        key = message.key.encode() if isinstance(message.key, str) else message.key
        producer.send("mlaas.requests", value=message.value, key=key, headers=list(message.headers.items())).get(30)
    producer.close()
    deadline = time.monotonic() + 60
    while len(answers) < 4 and time.monotonic() < deadline:
        for records in consumer.poll(timeout_ms=500).values():
            for record in records:
                message = kafka.KafkaMessage(headers=dict(record.headers), key=record.key, value=record.value)
                reply = kafka.from_kafka_event(message)
                cause, _, mode = str(reply.get_extension("causationid")).partition("-")
                if cause == run:
                    answers[f"kafka {mode}"] = labels(reply)
    consumer.close()
    print(json.dumps(answers))


main()
