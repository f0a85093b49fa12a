"""The document store goes away and comes back while events are on their way."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from mlaas import events
from mlaas.client import EventClient
from mlaas.testing.cluster import Check, Cluster
from mlaas.testing.mongo_server import MongoServer
from mlaas.testing.s3_server import BUCKET


def request(name: str) -> dict[str, Any]:
    return {
        "model": {"path": f"{BUCKET}/checkpoints/birds", "storage_type": "s3", "objective": "text-classification"},
        "model_train": {"epochs": 1, "batch_size": 16},
        "dataset": {"path": f"{BUCKET}/data/birds.jsonl", "storage_type": "s3", "train_test_split": 0.2},
        "model_save": {"path": f"{BUCKET}/models/{name}", "storage_type": "s3"},
    }


@pytest.mark.cluster("the document store killed with -9 for 10 s while a training is asked for: one task, one success")
def test_the_document_store_comes_back(
    cluster: Cluster, mongo: MongoServer, events_of: EventClient, trainings_into: Callable[[str], list[dict[str, Any]]], check: Check
) -> None:
    event = events.new("train", request("away"), source="/cluster", id="store-away")
    mongo.kill()
    try:
        events_of.send([event])
        time.sleep(10)
    finally:
        mongo.start()
    started = time.monotonic()
    final = {events.event_type("train", state) for state in ("succeeded", "failed", "cancelled")}
    done = [one for one in _until_end(events_of, final) if one.get("correlationid") == "store-away" and one["type"] in final]
    assert [one["type"] for one in done] == [events.event_type("train", "succeeded")], [one.data for one in done]
    assert len(trainings_into("away")) == 1
    check.measured(f"succeeded {time.monotonic() - started:.1f} s after the store was back")


def _until_end(client: EventClient, final: set[str]) -> list[Any]:
    found = []
    for one in client.watch(seconds=300):
        found.append(one)
        if one.get("correlationid") == "store-away" and one["type"] in final:
            break
    return found
