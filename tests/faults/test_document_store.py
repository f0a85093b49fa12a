"""The document store: its writer killed, its connections cut, refused and silent."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from mlaas import events
from mlaas.catalog import Catalog
from mlaas.documents import connect
from mlaas.settings import Settings
from mlaas.tasks import Tasks
from mlaas.testing.fault_table import Row
from mlaas.testing.mongo_server import MongoServer
from mlaas.testing.processes import running_job, serving, until
from mlaas.testing.toxic_proxy import ToxicProxy

FUNCTIONS = Path(__file__).parents[2] / "functions"
WRITE = """
import sys
from mlaas import events
from mlaas.documents import connect
from mlaas.tasks import Tasks
tasks = Tasks(connect(f"sqlite:///{sys.argv[1]}"))
for number in range(int(sys.argv[2]), 10**6):
    task = tasks.accept("train", {}, events.new("train", {}, source="/faults", id=str(number)), publish=True)["subject"]
    print("accepted", task, flush=True)
    run = tasks.begin(task)
    tasks.report(run, progress={"percent": 1.0})
    tasks.finish(run, "succeeded")
    print("succeeded", task, flush=True)
"""
KILLS = 12


@pytest.mark.fault("kill -9 of a process that writes the embedded document store", deadline=120)
def test_sqlite_keeps_every_acknowledged_write_of_killed_processes(row: Row, draw: random.Random, tmp_path: Path) -> None:
    file, said, services = tmp_path / "documents.sqlite", list[tuple[str, str]](), list[float]()
    for kill in range(KILLS):
        command = [sys.executable, "-c", WRITE, str(file), str(kill * 10_000)]
        started = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            first = process.stdout.readline()
            services.append(time.monotonic() - started)
            time.sleep(draw.uniform(0.0, 0.4))
            process.kill()
            lines = [first, *process.stdout.readlines()]
        said += [(state, task) for state, task in (line.split() for line in lines if line.endswith("\n"))]
        with sqlite3.connect(file) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
    tasks = Tasks(connect(f"sqlite:///{file}"))
    lost = 0
    for state, task in said:
        body = tasks.documents.get("tasks", task)
        final = body is not None and (body.body["task_status"], len(body.body["outbox"])) == ("succeeded", 2)
        lost += body is None or (state == "succeeded" and not final)
    tasks.documents.close()
    assert len(said) > KILLS
    row.measured(moment=f"{KILLS} times", in_flight=f"{len(said)} acknowledged writes", lost=lost, seconds=max(services[1:]))


@contextmanager
def broker() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A Broker's ingress that takes everything, and what it took."""
    taken: list[dict[str, Any]] = []

    class Ingress(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(202)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Ingress)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", taken
    server.shutdown()
    server.server_close()


class Deliveries:
    """Delivers events as a Broker does: again after a 503, and here each five times."""

    def __init__(self, url: str) -> None:
        self.url, self.slowest, self.statuses, self.hasty = url, 0.0, Counter[int](), 0
        self.replies: dict[str, set[str]] = {}

    def deliver(self, event: Any) -> None:
        headers, body = events.to_http(event)
        for _ in range(60):
            started = time.monotonic()
            answer = requests.post(self.url, data=body, headers=headers, timeout=60)
            self.slowest = max(self.slowest, time.monotonic() - started)
            self.statuses[answer.status_code] += 1
            if answer.ok:
                self.replies.setdefault(event["id"], set()).add(answer.headers["ce-id"])
                return
            self.hasty += "Retry-After" not in answer.headers
            time.sleep(0.5)


COUNT, BOUND = 20, 13.0  # seconds: the store's 10, and the machine's


def strike(mongodb: MongoServer, mongo: ToxicProxy, fault: str, seconds: float) -> None:
    if fault == "kill":
        mongodb.kill()
        time.sleep(seconds)
        mongodb.start()
    elif fault == "cut":
        for _ in range(int(seconds / 0.5)):
            mongo.cut()
            time.sleep(0.5)
    else:
        {"refuse": mongo.refuse, "silent": mongo.black_hole}[fault]()
        time.sleep(seconds)
    mongo.heal()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("kill", marks=pytest.mark.fault("kill -9 of MongoDB, which is then started again", deadline=180)),
        pytest.param("cut", marks=pytest.mark.fault("MongoDB: every connection reset, again and again", deadline=180)),
        pytest.param("refuse", marks=pytest.mark.fault("MongoDB away: connections refused", deadline=180)),
        pytest.param("silent", marks=pytest.mark.fault("MongoDB half-open: connections stay, nothing comes", deadline=180)),
    ],
)
def test_a_training_and_fivefold_deliveries_outlive_an_outage_of_mongodb(
    row: Row, draw: random.Random, mongodb: MongoServer, mongo: ToxicProxy, place: Settings, trainable: Any, tmp_path: Path, fault: str
) -> None:
    request, seconds = trainable(place, epochs=150), draw.uniform(10, 14)
    url = f"mongodb://127.0.0.1:{mongo.port}/mlaas"
    direct = Tasks(connect(f"mongodb://127.0.0.1:{mongo.target}/mlaas"))
    with broker() as (sink, taken), serving(FUNCTIONS / "train", {"MLAAS_DOCUMENTS": url, "MLAAS_THREADS": "8"}) as (function, _):
        deliveries = Deliveries(function)
        cause = events.new("train", request, source="/faults", id="trained")
        deliveries.deliver(cause)
        trained = direct.known("train", cause)
        assert trained
        folder = tmp_path / "job"
        folder.mkdir()
        (folder / "event").write_text(json.dumps(events.to_json(trained)))
        with running_job("mlaas.training.job", folder, {"MLAAS_DOCUMENTS": url, "K_SINK": sink}) as job, ThreadPoolExecutor(8) as pool:
            until(lambda: direct.get(trained["subject"]).get("progress", {}).get("step", 0) > 0, 60, "the training's first step")
            asked = [events.new("train", request, source="/faults", id=f"d{n}") for n in range(COUNT)]
            sent = [pool.submit(deliveries.deliver, event) for event in asked for _ in range(5)]
            time.sleep(draw.uniform(0.05, 0.3))
            percent = direct.get(trained["subject"])["progress"]["percent"]
            assert job.poll() is None
            assert percent < 90
            strike(mongodb, mongo, fault, seconds)
            healed = time.monotonic()
            probe = Deliveries(function)
            probe.deliver(events.new("train", request, source="/faults", id="after"))
            service = time.monotonic() - healed
            for one in sent:
                one.result()
            assert job.wait(90) == 0
    task = direct.get(trained["subject"])
    assert (task["task_status"], task["stats"]["attempts"]) == ("succeeded", 1), "the outage costs no attempt"
    completions = {one["id"] for one in taken if one["type"].endswith("train.succeeded.v1")}
    assert len(completions) == 1
    assert [entry["version"] for entry in Catalog(direct.documents).versions("models", "birds")] == ["1"]
    assert set(deliveries.statuses) <= {200, 503}
    assert deliveries.hasty == 0, "each 503 says when to come back"
    assert max(deliveries.slowest, probe.slowest) < BOUND
    assert all(len(replies) == 1 for replies in deliveries.replies.values()), "the same reply each time"
    lost = COUNT - sum(direct.known("train", event) is not None for event in asked)
    made = len(direct.find(limit=1000)[0])
    assert made == COUNT + 2, "one task for each event"
    direct.documents.close()
    row.measured(
        moment=f"at {percent:.0f} %, for {seconds:.0f} s; {deliveries.statuses[503]} answers of 503, the slowest in {deliveries.slowest:.1f} s",
        in_flight=f"a training; {COUNT} events, each delivered 5 times",
        lost=lost,
        twice=sum(one["id"] in completions for one in taken) - 1,
        seconds=service,
    )
