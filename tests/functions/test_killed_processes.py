"""Processes that share an SQLite store and a Broker by HTTP, killed with -9 at random moments: nothing is lost, nothing is done twice."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path

import pytest
from killed_worker import live

from mlaas import events
from mlaas.documents import connect
from mlaas.journal import Journal
from mlaas.ledger import Ledger
from mlaas.tasks import MAX_ATTEMPTS, Tasks

KILLS, ROUND_SECONDS = 20, 30.0


class Broker:
    """The Broker's ingress: what it took, in order, as bytes."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    @contextmanager
    def running(self) -> Iterator[str]:
        taken = self.taken

        class Ingress(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                taken.append(body)
                time.sleep(0.01)  # the Broker has it, and the sender has not heard of it
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

            def handle(self) -> None:
                try:
                    super().handle()
                except (BrokenPipeError, ConnectionResetError):  # the sender was killed
                    self.close_connection = True

        server = ThreadingHTTPServer(("127.0.0.1", 0), Ingress)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
        server.server_close()

    def about(self, task_id: str, state: str) -> list[str]:
        kind = events.event_type("train", state)
        return [text for text in self.taken if (event := json.loads(text))["subject"] == task_id and event["type"] == kind]


@pytest.mark.parametrize("seed", [7])
def test_killed_at_random_moments_every_request_makes_one_task_and_one_completion(tmp_path: Path, seed: int) -> None:
    choice, broker = random.Random(seed), Broker()
    context = get_context("forkserver")
    context.set_forkserver_preload(["killed_worker", "mlaas.documents.sqlite", "requests"])
    url = f"sqlite:///{tmp_path}/documents.sqlite"
    kills, requests = 0, 0
    with broker.running() as sink:
        environ = {"MLAAS_HOME": str(tmp_path), "MLAAS_DOCUMENTS": url, "K_SINK": sink, "K_EVENT_PATH": str(tmp_path / "event")}
        while kills < KILLS:
            requests += 1
            for life in range(MAX_ATTEMPTS):
                here, there = context.Pipe()
                process = context.Process(target=live, args=(environ, f"r-{requests}", there))
                process.start()
                assert here.recv() == "begun"
                process.join(choice.uniform(0.0, 0.15) if life < MAX_ATTEMPTS - 1 else ROUND_SECONDS)
                kills += process.exitcode is None
                process.kill()
                process.join()
                here.close()
                there.close()
            assert process.exitcode == 0
    store = connect(url)
    found = Tasks(store).find(limit=1000)[0]
    assert len(found) == requests
    assert {task["task_status"] for task in found} == {"succeeded"}
    assert list(Tasks(store).owed()) == []
    assert {entry.status for number in range(requests) for entry in Ledger(store).get(f"r-{number + 1}")} == {"done"}
    for task in found:
        assert len(set(broker.about(task["task_id"], "accepted"))) == 1
        [completed] = set(broker.about(task["task_id"], "succeeded"))  # at least once, and the same to the byte
        [kept] = Journal(store).find(task_id=task["task_id"])
        assert json.dumps(events.to_json(kept.event), ensure_ascii=False) == completed
        assert not broker.about(task["task_id"], "failed")
    store.close()
    again = sum(len(broker.about(task["task_id"], "succeeded")) - 1 for task in found)
    print(f"{kills} kills in {requests} requests; {again} completion events were published twice")
