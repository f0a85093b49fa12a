"""What a line of the log has."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlaas import logs, tracing

log = logging.getLogger("mlaas")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    before = (log.handlers[:], log.level, log.propagate)
    logs.configure(tmp_path / "log")
    yield tmp_path / "log"
    for handler in log.handlers:
        handler.close()
    log.handlers[:], log.level, log.propagate = before
    logs._of_process.clear()


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_line_names_the_span_it_was_written_in(file: Path) -> None:
    log.info("before")
    with tracing.span("work") as span:
        log.info("within", extra={"fields": {"n": 1}})
    before, within = lines(file)
    assert "trace_id" not in before
    assert (within["event"], within["n"], within["trace_id"], within["span_id"]) == ("within", 1, span.trace_id, span.span_id)


def test_bound_fields_are_on_every_line_inside_and_give_way_to_the_line_s_own(file: Path) -> None:
    with logs.bound(capability="train", id="1", task_id=None):
        with logs.bound(id="2"):
            log.info("a")
        log.info("b", extra={"fields": {"id": "3"}})
    log.info("c")
    assert [(line.get("capability"), line.get("id"), "task_id" in line) for line in lines(file)] == [
        ("train", "2", False),
        ("train", "3", False),
        (None, None, False),
    ]


def test_a_process_that_does_one_thing_says_which_on_every_line_of_every_thread(file: Path) -> None:
    logs.of_process(task_id="t")
    thread = threading.Thread(target=lambda: log.info("a"))
    thread.start()
    thread.join()
    log.info("b")
    assert [line["task_id"] for line in lines(file)] == ["t", "t"]
