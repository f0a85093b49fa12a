"""The order that is promised: the events of one task arrive as they were published, over several partitions, also when Kafka dies in between."""

import gc
import os
import signal
import threading
import time
from collections import defaultdict

import pytest
import urllib3
from kafka import KafkaConsumer, TopicPartition
from stub_platform import MANIFESTS, Home, needs_kafka

from mlaas import events
from mlaas.client import EventClient
from mlaas.local.kafka_server import free_port
from mlaas.local.platform import Platform

pytestmark = pytest.mark.services

TASKS, STATES = 30, ("accepted", *["progressed"] * 18, "succeeded")
STEPS = len(STATES)


def publish(url, number, failed):
    """What the job of one task does: each event when the one before is taken, and again, with the same id, where it was not."""
    pool = urllib3.PoolManager()
    for step, state in enumerate(STATES):
        event = events.build(
            events.event_type("index", state),
            "/order",
            {"step": step},
            id=f"{number}-{step}",
            subject=str(number),
            partitionkey=f"task-{number}",
        )
        headers, body = events.to_http(event)
        deadline = time.monotonic() + 60
        while (status := pool.request("POST", url, headers=headers, body=body, retries=False, timeout=30).status) != 202:
            if time.monotonic() > deadline:
                failed.append(status)
                return
            time.sleep(0.1)
    pool.clear()


def partitions_used(bootstrap, topic):
    consumer = KafkaConsumer(bootstrap_servers=bootstrap)
    ends = consumer.end_offsets([TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)])
    consumer.close()
    return sum(end > 0 for end in ends.values())


def scenario(home):
    """Publish and read everything, with a broker that is killed at a third: steps by task as they arrived, what failed, partitions used."""
    arrived, failed, killed = defaultdict(list), [], False
    with (
        Platform(home.settings(), home.folder / "base", port=0, kafka_port=free_port()) as platform,
        EventClient(platform.bootstrap) as client,
    ):
        jobs = [threading.Thread(target=publish, args=(f"{platform.url}/broker", number, failed)) for number in range(TASKS)]
        for job in jobs:
            job.start()
        for event in client.watch(seconds=120):
            arrived[event["subject"]].append(event.data["step"])
            if not killed and sum(map(len, arrived.values())) > TASKS * STEPS // 3:
                os.kill(int((home.folder / "home" / "kafka" / "broker.pid").read_text()), signal.SIGKILL)
                killed = True
            if sum(len(set(steps)) for steps in arrived.values()) == TASKS * STEPS:
                break
        for job in jobs:
            job.join(60)
        return arrived, failed, partitions_used(platform.bootstrap, "mlaas.events")


def test_the_events_of_each_task_arrive_in_their_order_though_kafka_is_killed_in_between(tmp_path, monkeypatch, caplog):
    needs_kafka()
    for logger in ("kafka", "mlaas"):  # their tracebacks would keep the sockets of refused connections alive
        caplog.set_level("CRITICAL", logger=logger)
    home = Home(tmp_path / "r")
    wiring = home.folder / "base" / "all.yaml"
    wiring.write_text(MANIFESTS.replace("{suffix: {type: .succeeded.v1}}", "{prefix: {type: it.infn.mlaas.index.}}"))  # all of a task's
    monkeypatch.setenv("STUB_CALLS", str(home.calls_file))
    arrived, failed, used = scenario(home)
    gc.collect()
    print(f"{sum(map(len, arrived.values()))} arrived of {TASKS * STEPS}, over {used} partitions")
    assert failed == []
    assert used >= 3
    assert {number: list(dict.fromkeys(steps)) for number, steps in arrived.items()} == {str(n): list(range(STEPS)) for n in range(TASKS)}
