"""What is served over HTTP counts for the catalog's hotness, wherever the document store is at that moment."""

from __future__ import annotations

import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
from test_serve_process import FUNCTIONS, serving, wait_for

from mlaas import events, served
from mlaas.catalog import usage
from mlaas.documents import shared
from mlaas.errors import StoreAway
from mlaas.settings import Settings

CLASSIFY = {"model": {"name": "infn-structures"}, "predict_input": {"input_text": ["INFN Frascati, a secret"]}}
SEARCH = {"dataset": {"name": "abstracts"}, "search_input": {"input_text": ["neutrino mass"]}}


def times(name: str, kind: Any = "models") -> int:
    return usage.of(shared(), kind, name).served


def test_an_answer_by_http_is_counted_for_its_model_and_its_index(client_of: Callable[[str], Any]) -> None:
    for _ in range(3):
        assert client_of("classify").post("/", json=CLASSIFY).status_code == 200
    assert client_of("search").post("/", json=SEARCH).status_code == 200
    assert times("infn-structures") == 0  # no request waits for the store
    served.flush()
    assert (times("infn-structures"), times("minilm"), times("abstracts", "indexes")) == (3, 1, 1)


def test_events_refusals_and_models_that_are_no_entries_are_not_counted(client_of: Callable[[str], Any], home: Settings) -> None:
    client = client_of("classify")
    event = {"specversion": "1.0", "id": "1", "source": "/t", "type": events.event_type("classify", "requested"), "data": CLASSIFY}
    assert client.post("/", json=event, headers={"Content-Type": "application/cloudevents+json"}).status_code == 200
    assert client.post("/", json={**CLASSIFY, "top_k": 0}).status_code == 422
    path = next(Path(home.artefacts, "models/infn-structures").glob("*/manifest.json")).parent.relative_to(home.artefacts)
    assert client.post("/", json={**CLASSIFY, "model": {"path": str(path)}}).status_code == 200
    served.flush()
    assert not any(stored.body["served"] for stored in shared().find("usage", {}))


def test_what_cannot_be_written_is_kept_and_written_later(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: Settings) -> Any:
        raise StoreAway("the document store is away")

    with monkeypatch.context() as patched:
        patched.setattr(served, "shared", away)
        served.count([("models", "minilm"), ("models", None)])
        served.flush()
        served.count([("models", "minilm")])
    served.flush()
    assert times("minilm") == 2


def test_names_are_bounded_and_those_that_the_catalog_does_not_have_are_dropped(home: Settings) -> None:
    served.count([("models", "minilm")])
    served.count(("models", f"nobody-{number}") for number in range(2 * served.NAMES))
    served.count([("models", "minilm"), ("models", "physics-lm")])
    assert len(served._counted) == served.NAMES
    served.flush()
    assert (times("minilm"), times("physics-lm"), times("nobody-1")) == (2, 0, 0)


def test_a_function_that_is_told_to_stop_writes_what_it_counted(home: Settings) -> None:
    with serving(FUNCTIONS / "classify") as (url, process):
        wait_for(f"{url}/health/readiness")
        assert requests.post(url, json=CLASSIFY, timeout=20).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert times("infn-structures") == 1
    with closing(sqlite3.connect(home.documents_url.removeprefix("sqlite:///"))) as store:
        assert "secret" not in "".join(store.iterdump())


def test_a_function_that_is_killed_has_written_all_but_the_last_seconds(home: Settings) -> None:
    with serving(FUNCTIONS / "classify") as (url, process):
        wait_for(f"{url}/health/readiness")
        assert requests.post(url, json=CLASSIFY, timeout=20).status_code == 200
        deadline = time.monotonic() + served.FLUSH_SECONDS + 10
        while not times("infn-structures") and time.monotonic() < deadline:
            time.sleep(0.1)
        process.kill()
    assert times("infn-structures") == 1


def test_a_store_that_does_not_answer_does_not_hold_up_the_end(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    answering = threading.Event()
    monkeypatch.setattr(served, "shared", lambda _: answering.wait(20) and shared())
    served.count([("models", "minilm")])
    started = time.monotonic()
    served.close(0.2)
    assert time.monotonic() - started < 5
    answering.set()


def test_counts_reach_the_store_without_being_asked_for(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "FLUSH_SECONDS", 0.05)
    served.count([("models", "minilm")])
    timer = served._timer
    assert timer
    timer.join(10)
    assert times("minilm") == 1
