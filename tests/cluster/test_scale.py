"""Out to several pods and back to none; a new revision, and a killed pod, while requests come."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import requests

from mlaas import events
from mlaas.client import EventClient
from mlaas.testing.cluster import Check, Cluster
from mlaas.testing.processes import until

COUNT = 500
CONNECTIONS = 50
REQUEST = {"model": {"name": "infn-structures"}, "predict_input": {"input_text": ["INFN Frascati"] * 8}}


def asking(cluster: Cluster) -> Callable[[int], tuple[int, float]]:
    """Ask classify once: status (0 where no answer came), seconds. Each thread has its connection."""
    local = threading.local()

    def ask(_number: int) -> tuple[int, float]:
        if not hasattr(local, "session"):
            local.session = cluster.session("classify")
        started = time.monotonic()
        try:
            status: int = local.session.post(cluster.ingress, json=REQUEST, timeout=180).status_code
        except requests.RequestException:
            status = 0
        return status, time.monotonic() - started

    return ask


@contextmanager
def counting_pods(cluster: Cluster) -> Iterator[list[int]]:
    """How many pods of classify were ready, again and again while the block runs."""
    found, stop = [0], threading.Event()

    def count() -> None:
        while not stop.wait(0.5):
            ready = [
                one
                for one in cluster.pods("classify")
                if all(each["ready"] for each in one["status"].get("containerStatuses", [{"ready": False}]))
            ]
            found.append(len(ready))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


@contextmanager
def steady_requests(cluster: Cluster) -> Iterator[Counter[int]]:
    """A few requests at once, one after another, while the block runs; their statuses."""
    ask, stop, statuses, lock = asking(cluster), threading.Event(), Counter[int](), threading.Lock()

    def go() -> None:
        while not stop.is_set():
            status, _ = ask(0)
            with lock:
                statuses[status] += 1
            time.sleep(0.05)

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.cluster(f"a burst of {COUNT} requests scales out and back to zero, none fails")
def test_a_burst_scales_out_and_back_to_zero(cluster: Cluster, check: Check) -> None:
    cluster.wait_for_zero("classify")
    started = time.monotonic()
    with counting_pods(cluster) as pods, ThreadPoolExecutor(CONNECTIONS) as pool:
        answers = list(pool.map(asking(cluster), range(COUNT)))
    seconds = time.monotonic() - started
    assert Counter(status for status, _ in answers) == {200: COUNT}
    assert max(pods) > 1
    zero = cluster.wait_for_zero("classify")
    p50, p99 = np.percentile([took for _, took in answers], [50, 99])
    check.measured(
        f"{COUNT} of 8 texts over {CONNECTIONS} connections in {seconds:.1f} s from zero; {max(pods)} pods; p50 {p50:.2f} s, p99 {p99:.2f} s; zero {zero:.0f} s later"
    )


@pytest.mark.cluster("a new revision under load drops no request")
def test_a_new_revision_under_load_drops_nothing(cluster: Cluster, check: Check) -> None:
    def ready_revision() -> str:
        return str(json.loads(cluster.kubectl("get", "ksvc", "classify", "-o", "json"))["status"]["latestReadyRevisionName"])

    before = ready_revision()
    with steady_requests(cluster) as statuses:
        until(lambda: statuses[200] > 20, 60, "the first answers")
        change = {"spec": {"template": {"metadata": {"annotations": {"mlaas.infn.it/rolled": str(time.time())}}}}}
        cluster.kubectl("patch", "ksvc", "classify", "--type", "merge", "-p", json.dumps(change))
        took = until(lambda: ready_revision() != before, 120, "the new revision")
        old = f"serving.knative.dev/revision={before}"
        until(lambda: not cluster.items("pods", old), 120, "the end of the old revision's pods", every=0.5)
        count = statuses[200]
        until(lambda: statuses[200] > count + 20, 60, "answers of the new revision")
    assert set(statuses) == {200}, statuses
    check.measured(f"{statuses[200]} requests, all answered; the new revision took over after {took:.1f} s")


@pytest.mark.cluster("a function killed with -9 under events from Kafka: each has its reply")
def test_a_pod_killed_under_load_loses_nothing(cluster: Cluster, events_of: EventClient, check: Check) -> None:
    asked: list[Any] = [events.new("classify", REQUEST, source="/cluster", id=f"killed-{number}") for number in range(COUNT)]
    events_of.send(asked)
    wanted, ids = {event["id"] for event in asked}, Counter[str]()
    killed = ""
    started = time.monotonic()
    for one in events_of.watch(seconds=240):
        if one.get("causationid") in wanted:
            assert one["type"] == events.event_type("classify", "succeeded"), one.data
            ids[one["id"]] += 1
            if len(ids) >= COUNT // 5 and not killed:
                killed = cluster.kill(cluster.pods("classify")[0]["metadata"]["name"], "mlaas.serve")
        if len(ids) == COUNT:
            break
    assert killed
    assert len(ids) == COUNT, f"{COUNT - len(ids)} lost"
    check.measured(
        f"{COUNT} events, {killed} after {COUNT // 5}: {len(ids)} replies in {time.monotonic() - started:.1f} s, {ids.total() - len(ids)} twice with the same id"
    )
