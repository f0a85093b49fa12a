"""Clocks that jump while a task runs."""

from __future__ import annotations

import random
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlaas import events
from mlaas.documents import connect
from mlaas.heartbeats import Watch
from mlaas.tasks import Tasks
from mlaas.testing.fault_table import Row
from mlaas.testing.processes import until

STALE = 1.5  # seconds
BEAT = 0.1


class Clock:
    """The wall clock of a machine, `off` by some time."""

    def __init__(self) -> None:
        self.off = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.off


@pytest.mark.parametrize(("where", "hours"), [("job", 1), ("job", -1), ("relay", 1), ("relay", -1)])
@pytest.mark.fault("the clock jumps an hour while a task runs")
def test_a_jump_ends_no_run_and_the_dead_are_still_found(row: Row, draw: random.Random, tmp_path: Path, where: str, hours: int) -> None:
    row.fault = f"the {where}'s clock jumps an hour {'forward' if hours > 0 else 'back'} while tasks run"
    clocks = {"job": Clock(), "relay": Clock()}
    url = f"sqlite:///{tmp_path}/documents.sqlite"
    job, relay = (Tasks(connect(url), clock=clock) for clock in clocks.values())
    tasks = [job.accept("train", {}, events.new("train", {}, id=str(n)), publish=False)["subject"] for n in range(6)]
    runs = [job.begin(task) for task in tasks]
    dead, living = runs[0], runs[1:]
    ended, watch = threading.Event(), Watch(STALE)

    def beat() -> None:
        while not ended.wait(BEAT):
            for run in living:
                job.report(run)

    thread = threading.Thread(target=beat)
    thread.start()
    expired: list[str] = []
    try:
        until(lambda: expired.extend(relay.expire(watch)) or time.sleep(draw.uniform(0.2, 0.6)) is None, 5, "a look")
        struck = time.monotonic()
        clocks[where].off = timedelta(hours=hours)
        until(lambda: expired.extend(relay.expire(watch)) or expired, 10, "the end of the dead run", every=BEAT)
        seconds = time.monotonic() - struck
        assert seconds > STALE / 2, "not because of the jump"
        for _ in range(int(2 * STALE / BEAT)):
            time.sleep(BEAT)
            expired.extend(relay.expire(watch))
    finally:
        ended.set()
        thread.join()
    assert expired == [dead.task_id]
    for run in living:
        job.finish(run, "succeeded")
    found = [relay.get(task) for task in tasks[1:]]
    assert all(task["stats"]["elapsed"] >= 0 for task in found)
    owed = [event["type"].split(".")[4] for _, event in relay.owed()]
    assert sorted(owed) == ["failed"] + ["succeeded"] * 5
    for store in (job, relay):
        store.documents.close()
    lost = sum(task["task_status"] != "succeeded" for task in found)
    row.measured(moment="with 5 runs alive, 1 dead", in_flight="6 tasks", lost=lost, seconds=seconds)
