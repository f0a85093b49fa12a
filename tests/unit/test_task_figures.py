"""What the relay measures of tasks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlaas import events, metrics, probes
from mlaas.journal import Journal
from mlaas.task_figures import Endings, read_gauges_from
from mlaas.tasks import Tasks
from mlaas.testing.memory_documents import MemoryDocuments


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tasks]:
    for counted in (metrics.JOB_SECONDS._counts, metrics.JOB_SECONDS._sums):
        counted.clear()
    yield Tasks(MemoryDocuments())
    for gauge in (metrics.TASKS, metrics.OUTBOX_TASKS, metrics.PARKED_EVENTS):
        gauge._read.clear()


def accept(tasks: Tasks, id: str) -> str:
    return str(tasks.accept("index", {}, events.new("index", {}, id=id), publish=False)["subject"])


def end(tasks: Tasks, id: str, status: str) -> None:
    """A task that runs and ends, and whose event is kept."""
    run = tasks.begin(accept(tasks, id))
    assert run
    tasks.finish(run, status)
    for task_id, event in tasks.owed():
        Journal(tasks.documents).keep(task_id, event)


def scraped() -> dict[str, float]:
    app = probes.create_app(probes.Pulse()).test_client()
    families = text_string_to_metric_families(app.get("/metrics").text)
    return {f"{one.name}{''.join(one.labels.values())}": one.value for family in families for one in family.samples}


def test_the_gauges_are_read_from_the_store_at_each_scrape(tasks: Tasks) -> None:
    read_gauges_from(tasks)
    assert scraped()["mlaas_tasksaccepted"] == 0
    accept(tasks, "1")
    end(tasks, "2", "succeeded")
    found = scraped()
    assert (found["mlaas_tasksaccepted"], found["mlaas_tasksrunning"], found["mlaas_taskssucceeded"]) == (1, 0, 1)
    assert (found["mlaas_outbox_tasks"], found["mlaas_parked_events"]) == (1, 0)


def test_each_ending_is_measured_once_by_outcome(tasks: Tasks) -> None:
    end(tasks, "before", "succeeded")
    old = {event["time"] for _, event in tasks.owed()}
    while events.new("index", {})["time"] in old:  # what ended before the relay looked is not its to measure
        pass
    endings = Endings(Journal(tasks.documents))
    endings.look()
    assert "mlaas_job_seconds_countindexsucceeded" not in scraped()
    for number, status in enumerate(("succeeded", "failed", "succeeded")):
        end(tasks, str(number), status)
        endings.look()
        endings.look()
    found = scraped()
    assert (found["mlaas_job_seconds_countindexsucceeded"], found["mlaas_job_seconds_countindexfailed"]) == (2, 1)


def test_a_loop_that_no_longer_turns_is_not_alive() -> None:
    pulse = probes.Pulse(seconds=0.0)
    app = probes.create_app(pulse).test_client()
    assert app.get("/health/liveness").status_code == 503
    pulse.seconds = 60.0
    pulse.beat()
    assert [app.get(f"/health/{one}").status_code for one in ("liveness", "readiness")] == [200, 200]
