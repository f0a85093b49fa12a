"""10,000 events through the runner while its Kafka is killed with -9 and, later, stopped: each is answered, and once by id."""

import gc
import os
import signal
import threading
import time
from collections import Counter

import pytest
from stub_platform import Home, needs_kafka, until

from mlaas import events
from mlaas.client import EventClient
from mlaas.kafka_lag import waiting
from mlaas.local.kafka_server import free_port
from mlaas.local.platform import Platform
from mlaas.settings import load
from mlaas.testing.kafka import read

pytestmark = [
    pytest.mark.services,
    # kafka-python leaves the socket of a refused connection to the garbage collector; there are such while a broker is down.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"),
]

COUNT, CHUNK, AHEAD = 10_000, 250, 1500  # so many events are sent before their replies are here
SECONDS = 300
SOURCE = "/restart"


class Sender(threading.Thread):
    """Sends the requests in chunks, a bit ahead of their replies, so that each outage comes in the middle of a `send`."""

    def __init__(self, bootstrap, answered):
        super().__init__()
        self.bootstrap, self.answered, self.sent, self.failed = bootstrap, answered, 0, None

    def run(self):
        try:
            with EventClient(self.bootstrap) as client:
                for first in range(0, COUNT, CHUNK):
                    until(lambda first=first: first < len(self.answered) + AHEAD, SECONDS)
                    chunk = [
                        events.new("fill_mask", {"n": n}, source=SOURCE, id=str(n), key=f"k{n % 97}") for n in range(first, first + CHUNK)
                    ]
                    self.sent += client.send(chunk)
        except Exception as error:
            self.failed = error


def broker_pid(home):
    return int((home.folder / "home" / "kafka" / "broker.pid").read_text())


def test_a_consumer_that_drops_known_ids_sees_each_reply_once_though_kafka_is_killed_and_stopped(tmp_path, monkeypatch):
    needs_kafka()
    home = Home(tmp_path / "r")
    monkeypatch.setenv("STUB_CALLS", str(home.calls_file))
    ids, answered, outages = Counter(), set(), []
    plan = {COUNT * 3 // 10: signal.SIGKILL, COUNT * 6 // 10: signal.SIGTERM}
    with (
        Platform(home.settings(), home.folder / "base", port=0, kafka_port=free_port()) as platform,
        EventClient(platform.bootstrap) as client,
    ):
        started = time.monotonic()
        sender = Sender(platform.bootstrap, answered)
        sender.start()
        for event in client.watch(seconds=SECONDS):
            if event["source"] != "/mlaas/classify":
                continue
            ids[event["id"]] += 1
            answered.add(event["causationid"])
            if plan and len(answered) >= min(plan):
                os.kill(broker_pid(home), plan.pop(min(plan)))
                outages.append(sender.sent)
            if len(answered) == COUNT:
                break
        seconds = time.monotonic() - started
        sender.join(SECONDS)
        for event in client.watch(seconds=2):
            ids[event["id"]] += 1
        requested = Counter(event["id"] for event in read(platform.bootstrap, "mlaas.requests", lambda found: len(found) >= COUNT))
        letters = waiting(load({"MLAAS_KAFKA": platform.bootstrap})).dead_letters.count
    gc.collect()
    twice = sum(ids.values()) - len(ids)
    print(
        f"{COUNT} events in {seconds:.0f} s with {len(outages)} outages; {twice} replies and {sum(requested.values()) - COUNT} requests came again"
    )
    assert sender.failed is None
    assert sender.sent == COUNT
    assert len(outages) == 2
    assert all(sent < COUNT for sent in outages), "each outage was in the middle of the sending"
    assert set(ids) == {events.derived_id(SOURCE, str(n), "classify", "succeeded") for n in range(COUNT)}
    assert set(requested) == {str(n) for n in range(COUNT)}
    assert letters == 0
