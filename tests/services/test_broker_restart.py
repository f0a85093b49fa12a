"""10,000 events through the runner while its Kafka is killed with -9 and, later, stopped: each is answered, and once by id."""

import gc
import os
import signal
import threading
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from stub_platform import Home, needs_kafka, until

from mlaas import events
from mlaas.client import EventClient
from mlaas.kafka_lag import waiting
from mlaas.local.kafka_server import free_port
from mlaas.local.platform import Platform
from mlaas.settings import load
from mlaas.testing.kafka import read

pytestmark = pytest.mark.services

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


def scenario(home):
    """Send and read everything, with a broker that is killed at a third of the replies and stopped at two thirds; what was seen."""
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
        ids.update(event["id"] for event in client.watch(seconds=2))
        requested = Counter(
            event["id"] for event in read(platform.bootstrap, "mlaas.requests", lambda found: len({e["id"] for e in found}) >= sender.sent)
        )
        letters = waiting(load({"MLAAS_KAFKA": platform.bootstrap})).dead_letters.count
    return SimpleNamespace(
        ids=ids, outages=outages, requested=requested, letters=letters, sent=sender.sent, failed=sender.failed, seconds=seconds
    )


def test_a_consumer_that_drops_known_ids_sees_each_reply_once_though_kafka_is_killed_and_stopped(tmp_path, monkeypatch, caplog):
    needs_kafka()
    for logger in ("kafka", "mlaas"):  # their tracebacks would keep the sockets of refused connections alive
        caplog.set_level("CRITICAL", logger=logger)
    home = Home(tmp_path / "r")
    monkeypatch.setenv("STUB_CALLS", str(home.calls_file))
    seen = scenario(home)
    gc.collect()
    twice, sent_twice = (sum(found.values()) - len(found) for found in (seen.ids, seen.requested))
    print(
        f"{COUNT} events in {seen.seconds:.0f} s, {len(seen.outages)} outages; {twice} replies and {sent_twice} requests came again, by id"
    )
    assert seen.failed is None
    assert seen.sent == COUNT
    assert len(seen.outages) == 2
    assert all(sent < COUNT for sent in seen.outages), "each outage was in the middle of the sending"
    assert set(seen.ids) == {events.derived_id(SOURCE, str(n), "classify", "succeeded") for n in range(COUNT)}
    assert set(seen.requested) == {str(n) for n in range(COUNT)}
    assert seen.letters == 0
