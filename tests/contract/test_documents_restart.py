"""What the document store acknowledged is there after what keeps it was stopped, killed and started again."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlaas.documents import Documents, Stored, connect, mongo
from mlaas.errors import Unavailable
from mlaas.testing import mongo_server

pytestmark = pytest.mark.services

WRITE = """
import sys
from mlaas.documents import connect
from mlaas.errors import Unavailable
store = connect(sys.argv[1])
for number in range(100_000):
    try:
        assert store.insert("tasks", str(number), {"task_status": "accepted"})
        print(number, 1, flush=True)
        assert store.replace("tasks", store.get("tasks", str(number)), {"task_status": "running"})
        print(number, 2, flush=True)
    except Unavailable:
        break
"""


@dataclass(frozen=True)
class Kept:
    """A store: its URL, and how what keeps its data is ended and started again while `writer` writes."""

    url: str
    kill: Callable[[subprocess.Popen[str]], None]
    stop: Callable[[], None]
    start: Callable[[], None]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[mongo_server.MongoServer]:
    if not mongo_server.installed():
        pytest.skip("mongo-java-server is not installed: python -m mlaas.testing.mongo_server install")
    with mongo_server.MongoServer(tmp_path / "mongo") as server:
        yield server


@pytest.fixture(params=["sqlite", "mongodb"])
def kept(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    if request.param == "sqlite":  # the process that writes is what keeps the data
        nothing = lambda: None  # noqa: E731
        return Kept(f"sqlite:///{tmp_path}/documents.sqlite", lambda writer: writer.kill(), nothing, nothing)
    monkeypatch.setattr(mongo, "_SELECTION_MS", 300)
    server: mongo_server.MongoServer = request.getfixturevalue("server")
    return Kept(server.url, lambda writer: server.kill(), server.stop, server.start)


def test_what_was_acknowledged_survives_a_kill_in_the_middle_of_writes(kept: Kept) -> None:
    for start in range(2):
        writer = subprocess.Popen([sys.executable, "-c", WRITE, f"{kept.url}{start}"], stdout=subprocess.PIPE, text=True)
        assert writer.stdout
        acknowledged = [writer.stdout.readline() for _ in range(100)]
        kept.kill(writer)
        rest, _ = writer.communicate(timeout=60)
        acknowledged += [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]
        kept.start()
        store = connect(f"{kept.url}{start}")
        revisions = dict(tuple(map(int, line.split())) for line in acknowledged)
        assert len(revisions) >= 50
        found = {key: store.get("tasks", str(key)) for key in revisions}
        assert [key for key, one in found.items() if one is None or one.revision < revisions[key]] == []
        running = {one.key for one in store.find("tasks", {"task_status": "running"}, limit=100_000)}
        assert {str(key) for key, revision in revisions.items() if revision == 2} <= running
        store.close()


def look(store: Documents) -> Stored | None:
    try:
        return store.get("tasks", "a")
    except Unavailable:
        return None


def test_a_store_that_is_stopped_is_unavailable_and_the_same_client_goes_on_when_it_is_back(kept: Kept) -> None:
    store = connect(kept.url)
    store.insert("tasks", "a", {"text": "è così"})
    kept.stop()
    if kept.url.startswith("mongodb"):
        with pytest.raises(Unavailable):
            store.get("tasks", "a")
    kept.start()
    deadline = time.monotonic() + 30  # the client looks for its server again now and then
    while (found := look(store)) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found
    assert found.body == {"text": "è così"}
    assert not store.insert("tasks", "a", {})
    assert store.replace("tasks", store.get("tasks", "a"), {"text": "b"})
    store.close()
