"""The process of one shard beside the task's own: it builds its part, says that it lives, and ends with the task."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from .. import jobs, logs
from ..contracts import IndexRequest, parse
from ..documents import shared
from ..errors import MlaasError, Unavailable
from ..settings import Settings
from ..tasks import Tasks
from . import shards
from .shards import Shards
from .source import Source

__all__ = ["main"]

log = logging.getLogger("mlaas")


def main(settings: Settings) -> int:
    """Make the shard that JOB_COMPLETION_INDEX names, unless it is done or there is none; the process' exit status."""
    logs.configure()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    shard = settings.completion_index
    assert shard, "shard 0 is the task's own process"
    try:
        event = jobs.read_event(settings)
        logs.of_process(task_id=event["subject"], capability="index")
        request = parse(IndexRequest, event.data["request"])
        if request.update is None and _goes_on(event["subject"], settings):
            _make(shard, request, event["subject"], settings)
    except Unavailable as error:
        log.warning("shard.unavailable", extra={"fields": {"shard": shard, "reason": error.detail}})
        return 75  # EX_TEMPFAIL: the controller starts it again
    except MlaasError as error:  # the task's own process meets the same, and its task says so
        log.warning("shard.refused", extra={"fields": {"shard": shard, "reason": error.detail}})
    return 0


def _make(shard: int, request: IndexRequest, task_id: str, settings: Settings) -> None:
    source = Source.load(request, settings)
    these = Shards.of(source, task_id, source.count(), settings)
    if shard >= these.number or these.done(shard):
        return
    with jobs.workspace(settings) as folder:
        alive = _Alive(these, shard, folder, os.getppid())
        thread = threading.Thread(target=alive.run, daemon=True)
        thread.start()
        try:
            these.make(shard, folder, alive.hear)
        finally:
            alive.ended.set()
            thread.join(timeout=10)
    log.info("shard.done", extra={"fields": {"shard": shard, "of": these.number}})


class _Alive:
    """Beats while the shard is at work; stops the process when the task has ended or whoever started it is gone."""

    def __init__(self, these: Shards, shard: int, folder: Path, parent: int) -> None:
        self._shards, self._shard, self._folder, self._parent = these, shard, folder, parent
        self._done = 0
        self.ended = threading.Event()

    def hear(self, done: int) -> None:
        """Hear of the progress."""
        self._done = done

    def run(self) -> None:
        """Beat until the end."""
        while not self.ended.wait(shards.BEAT_SECONDS):
            try:
                if os.getppid() != self._parent or not _goes_on(self._shards.task_id, self._shards.settings):
                    signal.raise_signal(signal.SIGTERM)
                    return
                self._shards.beat(self._shard, self._done, self._folder)
            except MlaasError as error:
                log.warning("shard.beat_missed", extra={"fields": {"shard": self._shard, "reason": error.detail}})


def _goes_on(task_id: str, settings: Settings) -> bool:
    task: dict[str, Any] = Tasks(shared(settings)).get(task_id)
    return task["task_status"] in ("accepted", "running")
