"""A job: long work started by an event, with JobSink's contract.

K_EVENT_PATH names the accepted event (a file, or a folder with a file `event`). The task always reaches a final state:
succeeded, failed with the reason, or cancelled; a job that is told to stop gives its task back to be run again, and one
that is killed is started again by its controller, MAX_ATTEMPTS times at the most, or found by the relay, whose sweep
misses its heartbeat.
"""

from __future__ import annotations

import json
import logging
import shutil
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from cloudevents.http import CloudEvent

from . import events, logs, outbox, patience, timing, trace_export, tracing
from .contracts import TaskError
from .documents import shared
from .errors import InvalidRequest, MlaasError, Unavailable
from .settings import Settings, current
from .tasks import Cancelled, Run, Superseded, Tasks

__all__ = ["Job", "Stopped", "exit_with", "heed_signals", "main", "read_event", "uninterrupted", "workspace"]

HEARTBEAT_SECONDS = 5.0
PROGRESS_EVENT_SECONDS = 2.0
LEFTOVER_SECONDS = 24 * 3600.0

T = TypeVar("T")

log = logging.getLogger("mlaas")


class Stopped(BaseException):
    """The process was told to stop: past every `except Exception`, so that no library swallows it."""


@dataclass
class Job:
    """What the work of a job gets: its request, and where to say how far it is."""

    run: Run
    tasks: Tasks
    settings: Settings
    phases: timing.Phases = field(default_factory=timing.Phases)
    tail: logs.Tail = field(default_factory=logs.Tail)
    _phase: str = ""
    _last_event: float = 0.0
    _sequence: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)
    _cancelled: threading.Event = field(default_factory=threading.Event)
    _store_away: threading.Event = field(default_factory=threading.Event)

    @property
    def capability(self) -> str:
        """Whose job this is."""
        return str(self.run.accepted["type"].split(".")[3])

    def report(self, progress: Mapping[str, Any], **fields: Any) -> None:
        """Record how far the work is, and say so as an event now and then. Raises Cancelled when the task was."""
        self.check()
        self._enter(str(progress.get("phase", "")))
        now = time.monotonic()
        if self._store_away.is_set() or (now - self._last_event < PROGRESS_EVENT_SECONDS and progress.get("percent", 0) < 100):
            return
        self._last_event = now
        try:
            self.tasks.report(self.run, progress=dict(progress), log=self.tail.lines(), **fields)
        except Unavailable:  # the work goes on without it; the heartbeat notices when it is back
            self._store_away.set()
            return
        self._sequence += 1
        data = {"task_id": self.run.task_id, "progress": dict(progress)}
        event = events.reply(self.run.accepted, self.capability, "progressed", data, subject=self.run.task_id)
        event["id"] = events.derived_id(event["source"], self.run.task_id, "progressed", str(self.run.attempt), str(self._sequence))
        outbox.try_publish(event, self.settings)  # progress that is lost is not missed

    def _enter(self, phase: str) -> None:
        if phase and phase != self._phase:
            self._phase = phase
            log.info("job.phase", extra={"fields": {"phase": phase, "attempt": self.run.attempt}})
        self.phases.enter(phase)

    def check(self) -> None:
        """Raise Cancelled when the task was."""
        if self._cancelled.is_set():
            raise Cancelled("the run was cancelled")

    def persist(self, call: Callable[[], T]) -> T:
        """The result of `call`, tried again while what it needs is away (Unavailable), for MLAAS_JOB_PATIENCE seconds."""
        return patience.persist(call, self.settings.job_patience, between=self.check)

    def downloading(self, done: int, total: int) -> None:
        """How far a download is, in bytes, as `storage.fetch` tells it. Raises Cancelled as `report` does."""
        self.report({"phase": "download", "percent": 0.0, "bytes": done, "of_bytes": total})

    def beat(self) -> None:
        """Keep the heartbeat going until the work ends; notice a cancellation even while the work is silent."""
        while not self._ended.wait(HEARTBEAT_SECONDS):
            try:
                self.tasks.report(self.run, log=self.tail.lines())
                self._store_away.clear()
            except (Cancelled, Superseded):
                self._cancelled.set()
            except Unavailable:
                log.warning("job.heartbeat_missed")


def read_event(settings: Settings) -> CloudEvent:
    """The event that the job was started with. Raises InvalidRequest."""
    path = settings.event_path
    if path is None:
        raise InvalidRequest(
            "a job is started with an event", field="K_EVENT_PATH", remedy="Set K_EVENT_PATH to the event's file or folder."
        )
    file: Path = path / "event" if path.is_dir() else path
    try:
        return events.from_json(json.loads(file.read_text()))
    except (OSError, ValueError):
        raise InvalidRequest(
            "the job's event cannot be read", field="K_EVENT_PATH", remedy="Set K_EVENT_PATH to a CloudEvent in JSON."
        ) from None


def main(work: Callable[[Job], dict[str, Any]]) -> int:
    """Do `work` for the event of this process and bring its task to a final state; the process' exit status."""
    logs.configure()
    heed_signals()
    held: list[Job] = []
    try:
        return _begin_and_run(work, held)
    except Stopped:  # outside of the work itself: before its first step, or when all is recorded
        return _interrupted(held[0]) if held else 128 + signal.SIGTERM
    except MlaasError as error:
        log.error("job.not_started", extra={"fields": {"reason": error.detail, "remedy": error.remedy}})
        return 1


def _begin_and_run(work: Callable[[Job], dict[str, Any]], held: list[Job]) -> int:
    """Take the task, which `held` then has, and do the work."""
    settings = current()
    tasks = Tasks(shared(settings))
    task_id = read_event(settings)["subject"]
    logs.of_process(task_id=task_id)

    def begin() -> None:
        with uninterrupted():  # a task that is taken has to be known, to be given back
            if run := tasks.begin(task_id):
                held.append(Job(run, tasks, settings))

    patience.persist(begin, settings.job_patience)
    if held:
        return _run(held[0], work)
    outbox.flush(tasks, settings)
    return 0


def _run(job: Job, work: Callable[[Job], dict[str, Any]]) -> int:
    logs.of_process(capability=job.capability)
    log.addHandler(job.tail)
    trace_export.start(f"mlaas-{job.capability}", job.settings)
    threading.Thread(target=job.beat, daemon=True).start()
    try:
        parent, about = job.run.accepted.get("traceparent"), _attributes(job.run)
        with tracing.span(f"{job.capability} job", kind="consumer", parent=parent, attributes=about) as span:
            status = _bring_to_an_end(job, work)
            span.error = None if status == 0 else str(status)
        outbox.flush(job.tasks, job.settings)
        return status
    finally:
        trace_export.flush()


def _attributes(run: Run) -> dict[str, Any]:
    return {"mlaas.task_id": run.task_id, "mlaas.attempt": run.attempt, **events.span_attributes(run.accepted)}


def _bring_to_an_end(job: Job, work: Callable[[Job], dict[str, Any]]) -> int:
    started = time.perf_counter()
    outcome, fields = "failed", {}
    try:
        try:
            outcome, fields = "succeeded", work(job)
        except Cancelled:
            outcome = "cancelled"
        except Unavailable as error:
            log.warning("job.unavailable", extra={"fields": {"reason": error.detail}})
            return 75  # EX_TEMPFAIL: the controller starts the job again
        except MlaasError as error:
            outcome, fields = "failed", _error(error.detail, error.field, error.remedy)
        except MemoryError:
            outcome, fields = (
                "failed",
                _error("the run needed more memory than there is", "model_train.batch_size", "Use a smaller batch or shorter texts."),
            )
        except Exception:
            error_id = str(uuid.uuid4())
            log.exception("job.defect", extra={"fields": {"error_id": error_id}})
            outcome, fields = "failed", _error("the platform failed; the error id finds the cause in its log", error_id=error_id)
        job._ended.set()
        job.phases.enter("")
        fields["stats"] = {"phases": job.phases.seconds}
        fields["log"] = job.tail.lines()
        patience.persist(lambda: job.tasks.finish(job.run, outcome, **fields), job.settings.job_patience)
    except Superseded:
        log.warning("job.superseded", extra={"fields": {"attempt": job.run.attempt}})
        return 0
    except Unavailable:
        log.exception("job.not_recorded")
        return 75
    except Stopped:
        return _interrupted(job)
    seconds = round(time.perf_counter() - started, 3)
    log.info("job.ended", extra={"fields": {"outcome": outcome, "seconds": seconds, "phases": job.phases.seconds}})
    return 0


def _interrupted(job: Job) -> int:
    job._ended.set()
    try:
        job.tasks.release(job.run)
    except MlaasError as error:
        log.warning("job.not_released", extra={"fields": {"reason": error.detail}})
    log.info("job.interrupted")
    return 128 + signal.SIGTERM


def _error(detail: str, field: str | None = None, remedy: str | None = None, error_id: str | None = None) -> dict[str, Any]:
    return {"error": TaskError(detail=detail, field=field, remedy=remedy, error_id=error_id).model_dump(exclude_none=True)}


@dataclass
class _Signals:
    """Whether this process was told to stop while it could not."""

    held: int = 0
    asked: bool = False


_signals = _Signals()


def _stop(_number: int, _frame: FrameType | None) -> None:
    first, _signals.asked = not _signals.asked, True
    if first and not _signals.held:  # a second signal must not disturb what the first one has set off
        raise Stopped


def heed_signals() -> None:
    """From now on SIGTERM and SIGINT raise Stopped in this process' main thread, once, and not within `uninterrupted`."""
    _signals.asked = False
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A block that is done whole: whoever tells the process to stop meanwhile is heard at its end. For steps, not for minutes."""
    _signals.held += 1
    try:
        yield
    finally:
        _signals.held -= 1
    if _signals.asked and not _signals.held:
        raise Stopped


@contextmanager
def workspace(settings: Settings) -> Iterator[Path]:
    """A folder to work in, removed afterwards; what killed jobs left behind a day ago is removed before."""
    parent = settings.home / "work"
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.iterdir():
        if time.time() - left.stat().st_mtime > LEFTOVER_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def exit_with(work: Callable[[Job], dict[str, Any]]) -> None:
    """`main`, as a program's last line."""
    sys.exit(main(work))
