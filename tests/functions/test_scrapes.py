"""What a process of the platform shows to Prometheus."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from test_serve_process import FUNCTIONS, free_port, serving, wait_for

from mlaas import events, indexing
from mlaas.contracts import IndexRequest, parse
from mlaas.settings import Settings

INDEX = {"model": {"name": "minilm"}, "dataset": {"path": "affiliations.tsv"}, "vector_store_save": {"path": "i"}}


def scrape(url: str) -> dict[str, float]:
    """Value by name and label values, e.g. `mlaas_phase_seconds_count classify infer`."""
    answer = requests.get(f"{url}/metrics", timeout=10)
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    samples = (one for family in text_string_to_metric_families(answer.text) for one in family.samples)
    return {" ".join((one.name, *one.labels.values())): one.value for one in samples}


def test_a_function_shows_where_its_time_went_and_what_it_loaded(home: Settings) -> None:
    texts = [f"text {number}" for number in range(5)]
    search = {"dataset": {"name": "abstracts"}, "search_input": {"input_text": texts}}
    with serving(FUNCTIONS / "search") as (url, _):
        wait_for(f"{url}/health/readiness")
        headers, body = events.to_http(events.new("search", {}))
        refused = requests.post(url, data=body, headers=dict(headers), timeout=10)
        assert (refused.status_code, refused.headers["ce-type"]) == (200, events.event_type("search", "failed"))
        assert "mlaas_cold_start_seconds_count" not in scrape(url)
        for _ in range(2):
            assert requests.post(url, json=search, timeout=10).status_code == 200
        assert requests.post(url, json={}, timeout=10).status_code == 422
        found = scrape(url)
    assert (found["mlaas_request_seconds_count search succeeded"], found["mlaas_request_seconds_count search refused"]) == (2, 2)
    phases = {phase: found[f"mlaas_phase_seconds_count search {phase}"] for phase in ("queue", "load", "tokenize", "infer", "search")}
    assert phases == {"queue": 4, "load": 2, "tokenize": 2, "infer": 2, "search": 2}
    assert found["mlaas_phase_seconds_sum search queue"] < 5
    assert (found["mlaas_texts_total CPUExecutionProvider fp32"], found["mlaas_batch_texts_sum"], found["mlaas_batch_texts_count"]) == (
        10,
        10,
        2,
    )
    assert found["mlaas_batch_tokens_sum"] >= 20
    for kind in ("model", "store"):
        assert (found[f"mlaas_cache_requests_total {kind}s miss"], found[f"mlaas_cache_requests_total {kind}s hit"]) == (1, 1)
        assert found[f"mlaas_load_seconds_count {kind}"] == 1
    assert found["mlaas_cold_start_seconds_count"] == 1
    assert 0.1 < found["mlaas_cold_start_seconds_sum"] < 60


def test_the_time_that_a_request_waits_for_a_thread_is_its_queue(home: Settings) -> None:
    import threading

    classify = {"model": {"name": "infn-structures"}, "predict_input": {"input_text": ["x"] * 200}}
    with serving(FUNCTIONS / "classify", MLAAS_THREADS="1") as (url, _):
        wait_for(f"{url}/health/readiness")
        requests.post(url, json=classify, timeout=10)
        before = scrape(url)
        threads = [threading.Thread(target=requests.post, args=(url,), kwargs={"json": classify, "timeout": 30}) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        after = scrape(url)
    handled = after["mlaas_request_seconds_sum classify succeeded"] - before["mlaas_request_seconds_sum classify succeeded"]
    queued = after["mlaas_phase_seconds_sum classify queue"] - before["mlaas_phase_seconds_sum classify queue"]
    assert queued > handled  # six in a row, on one thread: the last waits for five


def test_requests_that_are_told_to_come_back_are_counted(home: Settings) -> None:
    from mlaas import metrics, serve

    before = dict(metrics.OVERLOADED._values).get((), 0.0)
    state = serve.State(ready=True, waiting_limit=-1)
    client = serve.create_app(serve.load_function(FUNCTIONS / "classify"), state).test_client()
    assert client.post("/", json={}).status_code == 429
    assert metrics.OVERLOADED._values[()] == before + 1


def test_attempts_at_an_event_that_changes_the_world_are_counted(home: Settings) -> None:
    headers, body = events.to_http(events.new("index", INDEX, id="1"))
    with serving(FUNCTIONS / "index") as (url, _):
        wait_for(f"{url}/health/readiness")
        assert {requests.post(url, data=body, headers=headers, timeout=10).status_code for _ in range(3)} == {200}
        found = scrape(url)
    assert found["mlaas_event_attempts_count index"] == 1  # the ledger knows the outcome of the redelivered ones
    assert found["mlaas_request_seconds_count index succeeded"] == 3


@contextmanager
def relaying(**environment: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    own = {"PORT": str(port), "MLAAS_HOST": "127.0.0.1", **environment}
    process = subprocess.Popen([sys.executable, "-m", "mlaas.relay"], env={**os.environ, **own}, stderr=subprocess.PIPE)
    try:
        yield f"http://127.0.0.1:{own['PORT']}", process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def test_the_relay_shows_the_figures_of_all_tasks_and_that_it_lives(home: Settings) -> None:
    indexing.accept(parse(IndexRequest, INDEX), events.new("index", INDEX), True)
    with relaying(MLAAS_KAFKA=f"127.0.0.1:{free_port()}") as (url, process):
        wait_for(f"{url}/health/liveness")
        assert requests.get(f"{url}/health/readiness", timeout=5).text == "OK"
        found = scrape(url)
        assert found["mlaas_kafka_up"] == 0
        assert (found["mlaas_tasks accepted"], found["mlaas_tasks failed"]) == (1, 0)
        assert (found["mlaas_outbox_tasks"], found["mlaas_parked_events"]) == (1, 0)  # there is no Broker to publish to
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0


def test_a_relay_that_cannot_have_its_port_relays_all_the_same(home: Settings) -> None:
    with relaying() as (url, _):
        wait_for(f"{url}/health/liveness")
        second = subprocess.run(
            [sys.executable, "-c", "import threading, os, signal; threading.Timer(6, os.kill, (os.getpid(), signal.SIGTERM)).start(); from mlaas import relay; relay.main([])"],
            env={**os.environ, "PORT": url.rpartition(":")[2], "MLAAS_HOST": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )  # fmt: skip
    assert second.returncode == 0
    assert "relay.not_observed" in second.stderr
    assert "Set PORT" in second.stderr


@pytest.mark.parametrize("path", ["/metrics", "/health/liveness"])
def test_a_scrape_of_a_relay_whose_store_is_away_still_answers(home: Settings, path: str) -> None:
    with relaying(MLAAS_DOCUMENTS=f"sqlite:///{home.home}") as (url, _):  # a folder
        wait_for(f"{url}{path}")
