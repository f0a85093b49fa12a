"""A parked event is replayed from its page, on a real Kafka."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from mlaas import settings
from mlaas.client import DEAD_LETTERS, EVENTS, REQUESTS
from mlaas.local.broker import Broker
from mlaas.local.kafka_server import KafkaServer
from mlaas.settings import Settings
from mlaas.testing.kafka import read, running_kafka
from mlaas.testing.web_home import TOKEN

pytestmark = pytest.mark.services
KNOWN = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def kafka() -> Iterator[KafkaServer]:
    with running_kafka() as server:
        Broker(Settings(kafka=server.bootstrap), [REQUESTS, EVENTS, DEAD_LETTERS]).close()  # makes the topics
        yield server


def test_one_click_publishes_a_parked_event_again(kafka: KafkaServer, web_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLAAS_KAFKA", kafka.bootstrap)
    settings.current.cache_clear()
    page = requests.get(f"{web_url}/web/events/parked", headers=KNOWN).text
    assert "None." in requests.get(f"{web_url}/web/events/letters", headers=KNOWN).text
    assert 'value="index-parked"' in page
    done = requests.post(f"{web_url}/web/events/replay", data={"id": "index-parked"}, headers=KNOWN)
    assert done.status_code == 200
    assert "was published again" in done.text
    assert "replayed" in done.text
    assert "index-parked" in [event["id"] for event in read(kafka.bootstrap, REQUESTS, bool)]
    again = requests.post(f"{web_url}/web/events/replay", data={"id": "absent"}, headers=KNOWN)
    assert (again.status_code, "Nothing waits under the id absent" in again.text) == (422, True)
