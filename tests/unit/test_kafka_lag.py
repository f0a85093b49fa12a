"""How far consumer groups are behind, which groups and topics are the platform's, and what is said of dead letters."""

import base64
import json
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from kafka import TopicPartition
from prometheus_client import CollectorRegistry, generate_latest

from mlaas import events, kafka_lag
from mlaas.errors import Unavailable
from mlaas.kafka_lag import DeadLetters, Lag, Waiting, waiting
from mlaas.kafka_metrics import KafkaCollector
from mlaas.settings import Settings


class FakeAdmin:
    """A Kafka with two partitions of each topic; `groups` are committed offsets by group, `ends` first and end of each partition."""

    def __init__(self, groups, ends):
        self.groups, self.ends = groups, ends

    def list_groups(self):
        return [{"group_id": group} for group in self.groups]

    def list_group_offsets(self, group):
        return {group: {TopicPartition(*place): SimpleNamespace(offset=offset) for place, offset in self.groups[group].items()}}

    def list_topics(self):
        return sorted({topic for topic, _ in self.ends})

    def describe_topics(self, topics):
        return [{"name": name, "partitions": [{"partition_index": n} for topic, n in self.ends if topic == name]} for name in topics]

    def list_partition_offsets(self, wanted):
        return {place: SimpleNamespace(offset=self.ends[place][0 if spec.name == "EARLIEST" else 1]) for place, spec in wanted.items()}


@pytest.fixture
def kafka(monkeypatch):
    def give(groups, ends):
        @contextmanager
        def admin(settings):
            yield FakeAdmin(groups, ends)

        monkeypatch.setattr(kafka_lag, "_admin", admin)

    return give


def test_the_lag_is_what_each_group_has_not_committed(kafka):
    topic = "knative-broker-mlaas"
    kafka({"knative-trigger-a": {(topic, 0): 7}, "mlaas-requests": {("mlaas.requests", 0): 5}},
          {(topic, 0): (2, 10), (topic, 1): (4, 9), ("mlaas.requests", 0): (0, 5)})  # fmt: skip
    assert waiting(Settings()).lags == (
        Lag("knative-trigger-a", topic, 2, 3 + 5),  # nothing is committed of the second partition: all of it waits
        Lag("mlaas-requests", "mlaas.requests", 1, 0),
    )


def test_an_offset_that_kafka_has_removed_counts_from_the_first_record_that_is_left(kafka):
    kafka({"mlaas-requests": {("mlaas.requests", 0): 3}}, {("mlaas.requests", 0): (8, 10)})
    assert waiting(Settings()).lags[0].lag == 2


def test_groups_and_topics_of_others_are_left_out(kafka):
    places = [("mlaas.requests", 0), ("knative-broker-ns-mlaas", 0), ("knative-broker-ns-other", 0), ("other", 0)]
    ends = dict.fromkeys(places, (0, 1))
    kafka({"mlaas-requests": dict.fromkeys(places, 0), "somebody": dict.fromkeys(places, 0)}, ends)
    assert [(one.group, one.topic) for one in waiting(Settings()).lags] == [
        ("mlaas-requests", "knative-broker-ns-mlaas"),
        ("mlaas-requests", "mlaas.requests"),
    ]


def test_dead_letters_are_counted_over_the_partitions(kafka):
    kafka({}, {("mlaas.dead-letters", 0): (2, 5), ("mlaas.dead-letters", 1): (0, 1)})
    assert waiting(Settings()).dead_letters == DeadLetters(True, 4)


def test_a_kafka_without_the_platforms_topics_has_nothing_waiting(kafka):
    kafka({}, {})
    assert waiting(Settings()) == Waiting((), DeadLetters(False, 0))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (base64.b64encode(json.dumps({"detail": "no such model"}).encode()).decode(), "no such model"),
        (base64.b64encode(b"Bad Gateway").decode(), base64.b64encode(b"Bad Gateway").decode()),
        ("", ""),
    ],
)
def test_the_reason_of_a_dead_letter_is_said_in_words_where_there_are_any(data, said):
    letter = events.build("t", "/s", {}, knativeerrordata=data)
    assert kafka_lag.reason(letter) == said


def scraped(collector):
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


def test_the_gauges_say_what_waits_and_ask_kafka_once_for_several_scrapes():
    asked = []
    collector = KafkaCollector(Settings(), lambda settings: asked.append(1) or Waiting((Lag("g", "t", 4, 12),), DeadLetters(True, 3)))
    for _ in range(3):
        text = scraped(collector)
    assert 'mlaas_kafka_lag_records{group="g",topic="t"} 12.0' in text
    assert "mlaas_dead_letters 3.0" in text
    assert "mlaas_kafka_up 1.0" in text
    assert len(asked) == 1


def test_a_kafka_that_is_away_is_a_gauge_and_no_failed_scrape():
    def away(settings):
        raise Unavailable("no Kafka answers")

    text = scraped(KafkaCollector(Settings(), away))
    assert "mlaas_kafka_up 0.0" in text
    assert "mlaas_dead_letters" not in text
