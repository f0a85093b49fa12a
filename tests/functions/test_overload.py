"""A function that has too much to do says so before its callers have waited long."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests
from test_serve_process import SLOW, serving, wait_for

from mlaas import batching, callers, engine, models, runtime
from mlaas.contracts import ModelRef
from mlaas.settings import Settings


def test_a_request_that_has_waited_too_long_for_a_thread_is_told_to_come_back(tmp_path: Path) -> None:
    (tmp_path / "func.py").write_text(SLOW)
    with serving(tmp_path, MLAAS_THREADS="1", MLAAS_QUEUE_SECONDS="0.5") as (url, _):
        wait_for(f"{url}/health/readiness")
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: requests.get(url, params={"s": "0.4"}, timeout=20), range(8)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.status_code for answer in answers} == {200, 429}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    assert refused[0].json()["type"] == "urn:mlaas:problem:overloaded"
    assert max(answer.elapsed.total_seconds() for answer in answers) < 8 * 0.4  # what all of them in a row would take


def test_a_model_with_too_much_work_waiting_answers_429_with_when_to_come_back(client_of, home: Settings) -> None:
    models.load(ModelRef(name="infn-structures")).model.batcher._limit = -1.0  # whatever the wait is, it is too long
    answer = client_of("classify").post(
        "/", json={"model": {"name": "infn-structures"}, "predict_input": {"input_text": ["Frascati"]}}, headers={runtime.TIMEOUT: "60000"}
    )
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")


def test_a_caller_whose_time_is_over_is_not_computed_for(client_of, home: Settings, monkeypatch) -> None:
    computed = []
    monkeypatch.setattr(engine.Model, "_compute", lambda *_: computed.append(1))
    answer = client_of("classify").post(
        "/", json={"model": {"name": "infn-structures"}, "predict_input": {"input_text": ["Frascati"]}}, headers={runtime.TIMEOUT: "0"}
    )
    assert (answer.status_code, computed) == (503, [])
    assert "Retry-After" in answer.headers


def test_a_caller_takes_the_ingress_timeout_and_what_was_waited(client_of, home: Settings, monkeypatch) -> None:
    seen = []

    def run(self, work):
        seen.append(callers.current())
        return [batching.Part(list(range(len(work.rows))), *work.compute(work.rows))]

    monkeypatch.setattr(batching.Batcher, "run", run)
    asked = {"model": {"name": "infn-structures"}, "predict_input": {"input_text": ["Frascati"]}}
    for timeout in ("30000", "soon"):
        assert client_of("classify").post("/", json=asked, headers={runtime.TIMEOUT: timeout}).status_code == 200
    assert 20 < seen[0].deadline - time.monotonic() <= 30
    assert seen[1].deadline == float("inf")
    assert not seen[0].left()
