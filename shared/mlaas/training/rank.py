"""Any rank of a training but the first: computes its share of each step that the first one names, and writes nothing.

`python -m mlaas.training.rank` is how `rank_launch` starts it; in pods it is `mlaas.training.job` with a RANK above 0.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import NoReturn

from .. import jobs, logs, patience
from ..contracts import TrainRequest, parse
from ..documents import shared
from ..errors import InvalidRequest, MlaasError, Unavailable
from ..settings import Settings, current
from ..tasks import FINAL, Tasks
from .batches import Batch
from .crew import connect, gpu
from .fetching import fetched
from .fingerprint import fingerprint
from .loop import steps_per_epoch
from .meeting import ARRIVAL, GAVE_UP, Other, Vanished
from .objectives import Task
from .optimization import compute, device
from .preparing import check_request, memory_errors, prepared, repeatable
from .progress import Meter
from .quiet import quiet
from .ranks import Ranks
from .starting_point import Sources
from .steps import Stepper, grouped

__all__ = ["Course", "main"]

CALL_SECONDS = 20.0  # that one attempt to reach the first rank may take

log = logging.getLogger("mlaas")


class Course:
    """The groups of batches of a run, found by their place, for one that is told which comes next."""

    def __init__(self, task: Task, size: int) -> None:
        self._task, self._size, self._epoch = task, size, -1
        self._groups: Iterator[tuple[int, list[Batch]]] = iter(())

    def at(self, epoch: int, place: int) -> list[Batch]:
        """Group `place` of `epoch`, neither of them before the last one. Raises LookupError if there is none."""
        while self._epoch < epoch:
            self._epoch += 1
            self._groups = enumerate(grouped(self._task.batches(self._epoch), self._size))
            if self._epoch < epoch:  # epochs draw from what the ones before have left
                next(self._groups, None)
        for number, group in self._groups:
            if number == place:
                return group
        raise LookupError(f"epoch {epoch} has no group {place}")


def main(*, launched: bool) -> int:
    """Serve the first rank until it ends; the process' exit status. `launched`: by the first rank, at the other end of standard input."""
    logs.configure()
    settings = current()
    task_id = jobs.read_event(settings)["subject"]
    logs.of_process(task_id=task_id, rank=settings.rank)
    if launched:
        _end_with_input()
    try:
        meeting = _met(settings, task_id)
    except MlaasError as error:
        log.error("rank.not_started", extra={"fields": {"reason": error.detail, "remedy": error.remedy}})
        return GAVE_UP
    if meeting is None:
        return 0
    try:
        _serve(settings, task_id, meeting, launched)
    except Vanished:
        pass
    except MlaasError as error:
        meeting.fail(error)
    except Exception:
        error_id = str(uuid.uuid4())
        log.exception("rank.defect", extra={"fields": {"error_id": error_id}})
        meeting.fail(InvalidRequest(f"rank {settings.rank} of the training failed; the error id {error_id} finds the cause in its log"))
    meeting.wait()
    return GAVE_UP


def _serve(settings: Settings, task_id: str, meeting: Other, launched: bool) -> NoReturn:
    request = _request(settings, task_id)
    check_request(request)
    where = device()
    gpu(where, settings.local_rank, settings.local_world_size)
    computing, seed = compute(request.model_train.precision, where), request.model_train.seed
    with quiet(), repeatable(seed, where), memory_errors():
        sources = Sources(**fetched(request, settings))
        meter = Meter(report=lambda report: None)
        here = 1 if launched else settings.local_world_size  # the first rank has counted those that it launched
        ready = prepared(request, sources, meter, computing, settings.home / "work", (meeting.size, here))
        meeting.gather(f"{fingerprint(request, ready.checkpoint, sources)} {computing.name}")
        ranks = Ranks.join(connect(settings, CALL_SECONDS), meeting.rank, meeting.size, where, meeting)
        _heed(ranks, launched)
        task, steps = ready.task, request.model_train.epochs * steps_per_epoch(ready.task, request.model_train)
        task.model.to(where)
        task.model.train()
        stepper = Stepper(task, request.model_train, computing, steps, ranks)
        stepper.restore(ranks.alike(task.model, stepper.optimizer, {}))
        course = Course(task, request.model_train.gradient_accumulation)
        while True:
            epoch, place, number = ranks.order()
            ranks.seed(seed, number)
            stepper.step(course.at(epoch, place), number)


def _request(settings: Settings, task_id: str) -> TrainRequest:
    task = patience.persist(lambda: Tasks(shared(settings)).get(task_id), settings.job_patience)
    return parse(TrainRequest, task["request"])


def _met(settings: Settings, task_id: str) -> Other | None:
    """The meeting, once the first rank is there; None if the task has ended, so that it will not come."""
    assert settings.rank is not None, "a rank has a number"
    deadline = time.monotonic() + ARRIVAL
    tasks = Tasks(shared(settings))
    while patience.persist(lambda: tasks.get(task_id), settings.job_patience)["task_status"] not in FINAL:
        try:
            return Other(connect(settings, CALL_SECONDS), settings.rank, settings.world_size)
        except RuntimeError:
            if time.monotonic() > deadline:
                raise Unavailable("the first rank of the training did not come") from None
    return None


def _heed(ranks: Ranks, launched: bool) -> None:
    """What is told to stop goes on until the first rank has written a checkpoint: that one hears of it with the next step."""

    def leave(_number: int, _frame: object) -> None:
        ranks.leaving = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN if launched else leave)


def _end_with_input() -> None:
    """Exit when standard input ends: whoever started this process is dead. What is told to all processes of a terminal is for that one."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)

    def watch() -> None:
        sys.stdin.buffer.read()
        os._exit(GAVE_UP)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(launched=True))
