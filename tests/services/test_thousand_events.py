"""A thousand events at once through `mlaas up`: a reply for each, also when processes are killed with -9 in the middle."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
import requests

from mlaas import events
from mlaas.client import EventClient
from mlaas.testing.homes import tiny_home
from mlaas.testing.processes import Up

pytestmark = pytest.mark.services

COUNT = 1000
TEXTS = {"INFN Frascati": "LNF", "INFN CNAF": "CNAF", "Universita di Firenze": "FI", "elsewhere": "[NoSite]"}


def batch(name: str) -> dict[str, str]:
    """Event id to the label that its reply must have."""
    labels = list(TEXTS.values())
    return {f"{name}-{number}": labels[number % len(labels)] for number in range(COUNT)}


def send(client: EventClient, wanted: dict[str, str]) -> None:
    text_of = {label: text for text, label in TEXTS.items()}
    made = [events.new("classify", {"model": {"name": "infn-structures"}, "predict_input": {"input_text": [text_of[label]]}}, source="/thousand", id=id)
            for id, label in wanted.items()]  # fmt: skip
    assert client.send(made) == COUNT


def collect(client: EventClient, wanted: dict[str, str], *, seconds: float, until: int = COUNT) -> Counter[str]:
    """How often each reply id came, until `until` requests have theirs; every label must be right."""
    ids, answered = Counter[str](), set()
    for event in client.watch(seconds=seconds):
        cause = event.get("causationid")
        if cause not in wanted:
            continue
        assert event["type"] == events.event_type("classify", "succeeded")
        assert event["id"] == events.derived_id("/thousand", cause, "classify", "succeeded")
        assert event.data["predictions"][0]["label"] == wanted[cause]
        ids[event["id"]] += 1
        answered.add(cause)
        if len(answered) >= until:
            break
    return ids


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Up:
    return Up(tiny_home(tmp_path_factory.mktemp("thousand")).home)


def test_every_event_is_answered_exactly_once_and_nothing_is_left_running(up: Up) -> None:
    wanted = batch("calm")
    with up.running() as process:
        with EventClient(up.kafka) as client:
            started = time.perf_counter()
            send(client, wanted)
            ids = collect(client, wanted, seconds=120)
            print(f"{COUNT} replies in {time.perf_counter() - started:.1f} s, the function's start included")
            ids += collect(client, wanted, seconds=2)
        pids = {one["pid"] for one in requests.get(up.url, timeout=10).json()["functions"].values() if one["pid"]}
    assert len(ids) == COUNT
    assert set(ids.values()) == {1}
    assert process.returncode == 0
    assert pids
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_nothing_is_lost_when_the_function_is_killed_in_the_middle(up: Up) -> None:
    wanted = batch("function")
    with up.running(), EventClient(up.kafka) as client:
        send(client, wanted)
        ids = collect(client, wanted, seconds=60, until=COUNT // 5)
        killed = up.pid("classify")
        assert killed
        os.kill(killed, signal.SIGKILL)
        left = {id: label for id, label in wanted.items() if events.derived_id("/thousand", id, "classify", "succeeded") not in ids}
        ids += collect(client, left, seconds=120, until=len(left))
        assert up.pid("classify") != killed
    assert len(ids) == COUNT


def test_nothing_is_lost_when_the_runner_is_killed_in_the_middle(up: Up) -> None:
    wanted = batch("runner")
    with up.running() as process, EventClient(up.kafka) as client:
        send(client, wanted)
        before = collect(client, wanted, seconds=60, until=COUNT // 5)
        process.kill()
        process.wait(timeout=10)
    assert len(before) < COUNT
    with up.running(), EventClient(up.kafka) as client:
        client.from_beginning()
        ids = collect(client, wanted, seconds=120)
    assert len(ids) == COUNT
    print(f"{sum(ids.values()) - COUNT} of {COUNT} replies came twice, with the same id")
