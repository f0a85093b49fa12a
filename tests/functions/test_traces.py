"""Traces as an operator gets them: exported by real processes to a collector, never at the cost of a request."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from cloudevents.http import CloudEvent
from test_jobs import TRAIN
from test_serve_process import FUNCTIONS, free_port, serving, wait_for

from mlaas import events, tracing
from mlaas.settings import Settings
from mlaas.testing.trace_collector import Collector, Got, collecting

CLASSIFY = {"model": {"name": "infn-structures"}, "predict_input": {"input_text": ["a private text"]}}
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as started:
        yield started


def log_of(process: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    process.terminate()
    return [json.loads(line) for line in process.communicate(timeout=30)[1].splitlines()]


def test_a_request_is_a_server_span_with_a_child_for_each_of_its_parts(home: Settings, collector: Collector) -> None:
    with serving(FUNCTIONS / "classify", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) as (url, process):
        wait_for(f"{url}/health/readiness")
        answer = requests.post(url, json=CLASSIFY, headers={"traceparent": f"00-{TRACE}-{SPAN}-01"}, timeout=10)
        lines = log_of(process)
    spans = {one.name: one for one in collector.spans}
    assert set(spans) == {"classify request", "queue", "load", "tokenize", "infer"}
    server = spans.pop("classify request")
    assert (server.service, server.kind, server.trace_id, server.parent, server.error) == ("mlaas-classify", "server", TRACE, SPAN, False)
    assert server.attributes["http.response.status_code"] == 200
    assert answer.headers["traceparent"] == f"00-{TRACE}-{server.span_id}-01"
    for part in spans.values():
        assert (part.service, part.kind, part.trace_id, part.parent) == ("mlaas-classify", "internal", TRACE, server.span_id)
        assert server.started <= part.started <= part.ended <= server.ended
    answered = next(line for line in lines if line["event"] == "request.answered")
    assert (answered["trace_id"], answered["span_id"]) == (TRACE, server.span_id)
    assert "private" not in repr(collector.spans) + repr(lines)


@pytest.mark.parametrize("structured", [True, False])
def test_an_event_s_own_trace_goes_on_in_its_reply_whatever_the_hop_s_header_says(
    home: Settings, collector: Collector, structured: bool
) -> None:
    sent = events.build(events.event_type("classify", "requested"), "/t", CLASSIFY, id="1", traceparent=f"00-{TRACE}-{SPAN}-01")
    headers, body = ({"Content-Type": events.STRUCTURED}, json.dumps(events.to_json(sent)).encode()) if structured else events.to_http(sent)
    with serving(FUNCTIONS / "classify", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{collector.url}/v1/traces") as (url, process):
        wait_for(f"{url}/health/readiness")
        answer = requests.post(url, data=body, headers={**headers, "traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}, timeout=10)
        lines = log_of(process)
    (server,) = (one for one in collector.spans if one.name == "classify request")
    assert (server.trace_id, server.parent) == (TRACE, SPAN)
    assert (server.attributes["cloudevents.event_id"], server.attributes["cloudevents.event_type"]) == ("1", sent["type"])
    assert events.from_request(dict(answer.headers), answer.content)["traceparent"] == f"00-{TRACE}-{server.span_id}-01"
    assert next(line for line in lines if line["event"] == "request.answered")["id"] == "1"


def test_deliveries_of_an_event_that_brings_no_trace_are_one_trace_with_one_reply_id(home: Settings) -> None:
    headers, body = events.to_http(events.new("classify", CLASSIFY, id="1"))
    with serving(FUNCTIONS / "classify") as (url, _):
        wait_for(f"{url}/health/readiness")
        answers = [requests.post(url, data=body, headers=headers, timeout=10).headers for _ in range(2)]
    parents = [tracing.parse(answer["ce-traceparent"]) for answer in answers]
    assert all(parents)
    assert parents[0].trace_id == parents[1].trace_id
    assert parents[0].span_id != parents[1].span_id
    assert answers[0]["ce-id"] == answers[1]["ce-id"]


def test_a_request_that_fails_is_an_error_that_names_no_text(home: Settings, collector: Collector) -> None:
    away = f"sqlite:///{home.home}"  # a folder
    with serving(FUNCTIONS / "classify", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, MLAAS_DOCUMENTS=away) as (url, process):
        wait_for(f"{url}/health/readiness")
        assert requests.post(url, json=CLASSIFY, timeout=30).status_code == 503
        log_of(process)
    spans = {one.name: one for one in collector.spans}
    assert (spans["classify request"].error, spans["classify request"].attributes["error.type"]) == (True, "unavailable")
    assert (spans["load"].error, spans["load"].attributes["error.type"]) == (True, "StoreAway")


@pytest.mark.parametrize("how", ["nobody listens", "it refuses", "it is silent"])
def test_a_collector_that_is_away_costs_no_request_and_one_line_of_the_log(home: Settings, collector: Collector, how: str) -> None:
    collector.open = False
    silent = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler, bind_and_activate=True)  # it accepts, and never answers
    endpoint = {
        "nobody listens": f"http://127.0.0.1:{free_port()}",
        "it refuses": collector.url,
        "it is silent": f"http://127.0.0.1:{silent.server_port}",
    }
    with serving(
        FUNCTIONS / "classify", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint[how], OTEL_BSP_SCHEDULE_DELAY="100", OTEL_EXPORTER_OTLP_TIMEOUT="1"
    ) as (url, process):
        wait_for(f"{url}/health/readiness")
        for _ in range(3):
            assert requests.post(url, json=CLASSIFY, timeout=10).status_code == 200
            time.sleep(0.5)
        time.sleep(1.0)
        stopping = time.monotonic()
        lines = log_of(process)
        assert time.monotonic() - stopping < 8
    silent.server_close()
    warned = [line for line in lines if line["event"].startswith("tracing.")]
    assert [line["event"] for line in warned] == ["tracing.export_failed"]
    assert endpoint[how] not in repr(lines)
    assert process.returncode == 0


def test_without_the_packages_one_line_says_what_to_install(home: Settings, collector: Collector, tmp_path: Path) -> None:
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").write_text("raise ImportError('not installed')")
    with serving(FUNCTIONS / "classify", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, PYTHONPATH=str(tmp_path)) as (url, process):
        wait_for(f"{url}/health/readiness")
        for _ in range(2):
            assert requests.post(url, json=CLASSIFY, timeout=10).status_code == 200
            time.sleep(0.2)
        lines = log_of(process)
    warned = [line for line in lines if line["event"].startswith("tracing.")]
    assert [(line["event"], "mlaas[tracing]" in line["remedy"]) for line in warned] == [("tracing.packages_missing", True)]


def test_an_endpoint_that_is_no_url_is_refused_with_the_setting_s_name(home: Settings) -> None:
    with serving(FUNCTIONS / "classify", OTEL_EXPORTER_OTLP_ENDPOINT="localhost:4318") as (url, process):
        wait_for(f"{url}/health/readiness")
        assert requests.post(url, json=CLASSIFY, timeout=10).status_code == 200
        lines = log_of(process)
    warned = [line for line in lines if line["event"].startswith("tracing.")]
    assert [(line["event"], "OTEL_EXPORTER_OTLP_ENDPOINT" in line["remedy"]) for line in warned] == [("tracing.endpoint_unusable", True)]


def test_nothing_heavy_is_imported_to_serve_and_opentelemetry_only_where_an_endpoint_is_set(home: Settings) -> None:
    program = f"""
import sys, pathlib
from mlaas import serve, settings, trace_export
print(sorted({{name.partition(".")[0] for name in sys.modules}} & {{"opentelemetry", "prometheus_client", "requests", "google", "numpy", "onnxruntime", "pymongo", "sqlite3", "boto3", "kafka"}}))
trace_export.start("mlaas-classify", settings.current())
client = serve.create_app(serve.load_function(pathlib.Path({str(FUNCTIONS / "classify")!r})), serve.State(ready=True)).test_client()
assert client.post("/", json={CLASSIFY!r}).status_code == 200
trace_export.flush()
print("opentelemetry" in sys.modules)
"""
    for environment, said in (({}, "[]\nFalse\n"), ({"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}, "[]\nTrue\n")):
        ran = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, **environment}, check=False
        )
        assert (ran.returncode, ran.stdout) == (0, said), ran.stderr


@dataclass
class Broker:
    """Takes events as a Broker's ingress does, and keeps them."""

    url: str
    taken: list[CloudEvent] = field(default_factory=list)

    def last(self, kind: str) -> CloudEvent:
        return next(event for event in reversed(self.taken) if event["type"] == kind)


@pytest.fixture
def broker() -> Iterator[Broker]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            taken.taken.append(events.from_request(dict(self.headers), body))
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    taken = Broker(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield taken
    server.shutdown()
    thread.join()
    server.server_close()


def run(module: str, *arguments: str, **environment: str) -> list[dict[str, Any]]:
    """Run a program of the platform to its end; its log."""
    ran = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        timeout=180,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stderr.splitlines() if line.startswith(b"{")]


def job_of(event: CloudEvent, module: str, folder: Path, **environment: str) -> list[dict[str, Any]]:
    folder.mkdir()
    (folder / "event").write_text(json.dumps(events.to_json(event)))
    return run(module, K_EVENT_PATH=str(folder), K_EXECUTION_MODE="batch", **environment)


def post(name: str, event: CloudEvent, **environment: str) -> requests.Response:
    """Deliver `event` to a function that is started for it and stopped afterwards."""
    headers, body = events.to_http(event)
    with serving(FUNCTIONS / name, **environment) as (url, _):
        wait_for(f"{url}/health/readiness")
        return requests.post(url, data=body, headers=dict(headers), timeout=30)


def children(spans: list[Got]) -> dict[str, list[str]]:
    names = {one.span_id: one.name for one in spans}
    found: dict[str, list[str]] = {}
    for one in sorted(spans, key=lambda one: one.started):
        found.setdefault(names.get(one.parent, ""), []).append(one.name)
    return found


@pytest.mark.training
def test_a_training_and_the_index_build_that_follows_it_are_one_trace(
    home: Settings, collector: Collector, broker: Broker, tmp_path: Path
) -> None:
    from mlaas.testing.tiny_checkpoints import write_checkpoint, write_rows

    if not (home.artefacts / "checkpoints" / "bert").exists():
        write_checkpoint(home.artefacts / "checkpoints" / "bert")
    write_rows(home.artefacts / "rows.jsonl")
    after = {
        "model": {"name": "minilm"},
        "dataset": {"path": "affiliations.tsv", "loader_kwargs": {"page_content_column": "affiliation"}},
        "vector_store_save": {"path": "indexes/traced"},
    }
    observed = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "K_SINK": broker.url}
    requested = events.new("train", {**TRAIN, "model_train": {"epochs": 1, "batch_size": 8}, "index_after": [after]})

    answer = post("train", requested, **observed)
    accepted = events.from_request(dict(answer.headers), answer.content)
    assert accepted["type"] == events.event_type("train", "accepted")
    log = job_of(accepted, "mlaas.training.job", tmp_path / "train", **observed)
    succeeded = broker.last(events.event_type("train", "succeeded"))
    assert post("index", succeeded, **observed).status_code == 204
    run("mlaas.relay", "--once", **observed)
    follows = broker.last(events.event_type("index", "accepted"))
    job_of(follows, "mlaas.indexing", tmp_path / "index", **observed)
    assert broker.last(events.event_type("index", "succeeded"))["correlationid"] == requested["id"]

    chain = [accepted, *broker.taken]
    assert {event["type"].split(".", 3)[3] for event in chain} >= {
        "train.accepted.v1", "train.progressed.v1", "train.succeeded.v1", "index.accepted.v1", "index.progressed.v1", "index.succeeded.v1"
    }  # fmt: skip
    parents = [tracing.parse(event["traceparent"]) for event in chain]
    (trace,) = {parent.trace_id for parent in parents if parent}
    assert all(parents)

    spans = collector.spans
    assert {one.trace_id for one in spans} == {trace}
    ids = {one.span_id for one in spans}
    assert {parent.span_id for parent in parents if parent} <= ids
    assert [one.name for one in spans if one.parent not in ids] == ["train request"]  # one tree, with one root
    tree = children(spans)
    assert "train job" in tree["train request"]
    assert {"load", "prepare", "train", "export", "parity", "index request"} <= set(tree["train job"])
    assert "index job" in tree["index request"]
    assert {"load", "embed", "publish", "publish it.infn.mlaas.index.succeeded.v1"} <= set(tree["index job"])
    assert {one.service for one in spans} == {"mlaas-train", "mlaas-index", "mlaas-relay"}
    assert {line["task_id"] for line in log} == {accepted["subject"]}
    ended = next(line for line in log if line["event"] == "job.ended")
    assert ended["trace_id"] == trace
    assert {"load", "train", "evaluate", "export", "parity"} <= set(ended["phases"])
    assert succeeded.data["stats"]["phases"] == ended["phases"]
