"""Tasks as a client sees them: started once, looked at, waited for, cancelled."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from .. import contracts, progress_bars
from ..contracts import Contract, IndexRequest, ModelRef, ModelRequest, TrainRequest, VectorStoreRef, parse
from ..errors import InvalidRequest, Unavailable
from .connection import Connection, pages, read
from .problems import TaskFailed
from .steps import Ask, Awaited, Blocking, Look, Pause, Performer, Step, Steps

__all__ = ["FINAL", "AsyncTask", "Task", "listed", "submitted"]

T = TypeVar("T")
Self = TypeVar("Self", bound="_Known")

FINAL = ("succeeded", "failed", "cancelled")
PATIENCE = 300.0  # seconds for which nobody may answer while a task is waited for
_REQUESTS: Mapping[str, type[Contract]] = {"train": TrainRequest, "index": IndexRequest, "model": ModelRequest}


def submitted(capability: str, request: Contract | Mapping[str, Any], key: str | None) -> Steps[contracts.Task]:
    """Start long work, once for each key. Raises InvalidRequest before anything is sent, or as the platform refuses it."""
    if isinstance(request, Mapping) and capability in _REQUESTS:
        request = parse(_REQUESTS[capability], dict(request))
    whole = request.model_dump(mode="json", exclude_unset=True, exclude_none=True) if isinstance(request, Contract) else dict(request)
    answer = yield Ask(capability, whole, key or str(uuid.uuid4()))
    if "task_id" not in answer.data:
        raise InvalidRequest(
            "this request was answered at once: it is no long work", field="predict_input", remedy="Refer to a file with `dataset`."
        )
    return read(contracts.Task, answer.data)


def listed(link: Connection, status: str | None, limit: int | None) -> Steps[list[contracts.Task]]:
    """Tasks, newest first."""
    from ..catalog.contracts import TaskPage, TasksQuery  # who asks for predictions does not wait for the catalog's contract

    query = parse(TasksQuery, {"status": status}).model_dump(exclude_none=True, exclude={"limit"})
    return (yield from pages(link, TaskPage, ("tasks",), query, limit))


def _refreshed(task: Self) -> Steps[Self]:
    """Look how far it is."""
    task.data = yield from _looked(task)
    return task


def _cancelled(task: Self) -> Steps[Self]:
    """Cancel it: at once if it waits, at its next report if it runs. Raises InvalidRequest if it has ended."""
    try:
        task.data = read(contracts.Task, (yield Look(task.id, cancel=True)))
    except InvalidRequest:  # it has ended; perhaps by this very request, whose answer was lost
        task.data = yield from _looked(task)
        if task.status != "cancelled":
            raise
    return task


def _waited(task: Self, *, progress: bool = False, timeout: float | None = None) -> Steps[Self]:
    """Wait until it has succeeded; with `progress`, show how far it is.

    Raises TaskFailed if it fails or is cancelled, Unavailable after `timeout` seconds: it goes on, and can be waited for again.
    """
    began = heard = time.monotonic()
    with progress_bars.following(task.id, disable=not progress) as show:
        while True:
            try:
                task.data = yield from _looked(task)
                heard = time.monotonic()
            except Unavailable:
                if time.monotonic() - heard > PATIENCE:
                    raise
            show(task.data.model_dump(mode="json", exclude_none=True))
            if task.status in FINAL:
                break
            waited = time.monotonic() - began
            if timeout is not None and waited >= timeout:
                remedy = f"It goes on. Wait again, with more time, or later: client.task({task.id!r}).wait()"
                raise Unavailable(f"the task has not ended within {timeout:g} s: it is {task.status}", remedy=remedy)
            pause = min(0.2 + waited / 20, 2.0)
            yield Pause(pause if timeout is None else min(pause, timeout - waited + 0.01))
    if task.status != "succeeded":
        raise TaskFailed(task.data)
    return task


def _result(task: Self, *, timeout: float | None = None) -> Steps[dict[str, Any]]:
    """What came of it, once it has succeeded. Raises as `wait` does."""
    yield from _waited(task, timeout=timeout)
    return dict(task.data.result or {})


def _looked(task: _Known) -> Steps[contracts.Task]:
    return read(contracts.Task, (yield Look(task.id)))


class _Known:
    """`data` is the task as it was when somebody last looked."""

    def __init__(self, client: Performer, data: contracts.Task) -> None:
        self._client = client
        self.data = data

    @property
    def id(self) -> str:
        """With it `client.task(id)` finds the task again, in another session too."""
        return self.data.task_id

    @property
    def status(self) -> str:
        """accepted, running, succeeded, failed or cancelled, when somebody last looked."""
        return self.data.task_status

    @property
    def model(self) -> ModelRef:
        """The model that it made, as `model=` takes it. Raises InvalidRequest where there is none."""
        return parse(ModelRef, self._made("model", ("train", "model")))

    @property
    def index(self) -> VectorStoreRef:
        """The index that it made, as `index=` takes it. Raises InvalidRequest where there is none."""
        return parse(VectorStoreRef, self._made("index", ("index",)))

    def perform(self, step: Step) -> Any:
        """Steps are the client's."""
        return self._client.perform(step)

    def _made(self, what: str, by: tuple[str, ...]) -> dict[str, Any]:
        made = (self.data.result or {}).get(what) if self.data.capability in by else None  # an index also names its model
        if not made:
            raise InvalidRequest(
                f"the task has made no {what}: it is a {self.data.capability} task, {self.status}",
                field="task_id",
                remedy="wait() for a task that makes one.",
            )
        return {"name": made["name"], "revision": made["version"]}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.data.capability} {self.status} {self.data.progress.percent:.0f}%>"


class Task(_Known):
    """A training, an index build or predictions for a file."""

    refresh = Blocking(_refreshed)
    cancel = Blocking(_cancelled)
    _wait = Blocking(_waited)
    _result = Blocking(_result)

    def wait(self, *, progress: bool = False, timeout: float | None = None) -> Task:
        """Wait until it has succeeded; with `progress`, show how far it is. Ctrl-C ends the waiting and not the task.

        Raises TaskFailed if it fails or is cancelled, Unavailable after `timeout` seconds: it goes on, and can be waited for again.
        """
        with _leaving(self.id):
            self._wait(progress=progress, timeout=timeout)
        return self

    def result(self, *, timeout: float | None = None) -> dict[str, Any]:
        """What came of it, once it has succeeded. Raises as `wait` does."""
        with _leaving(self.id):
            return self._result(timeout=timeout)


class AsyncTask(_Known):
    """The same, to be awaited. Who cancels the waiting does not cancel the task."""

    refresh = Awaited(_refreshed)
    cancel = Awaited(_cancelled)
    wait = Awaited(_waited)
    result = Awaited(_result)


@contextmanager
def _leaving(task_id: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        again = f"client.task({task_id!r}).wait(progress=True), or mlaas tasks show {task_id} --watch"
        print(f"The task goes on. Come back to it with {again}; stop it with client.task({task_id!r}).cancel()", file=sys.stderr)
        raise
