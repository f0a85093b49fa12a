"""What the platform refuses, as exceptions: the classes of `mlaas.errors`, and what only a client sees."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .. import errors
from ..contracts import Task
from ..errors import MlaasError

__all__ = ["Defect", "StreamBroken", "TaskFailed", "Unreachable", "from_problem", "from_status"]

_BY_STATUS: Mapping[int, type[MlaasError]] = {
    400: errors.Malformed,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    412: errors.Outdated,
    413: errors.TooLarge,
    416: errors.OutOfRange,
    422: errors.InvalidRequest,
    429: errors.Overloaded,
    502: errors.Unavailable,
    503: errors.Unavailable,
    504: errors.Unavailable,
}
_URN = "urn:mlaas:problem:"


class Defect(MlaasError):
    """The platform failed to answer; `error_id` finds the cause in its log."""

    def __init__(self, detail: str, *, error_id: str | None = None) -> None:
        super().__init__(detail, remedy=f"Give whoever runs the platform the error id {error_id}." if error_id else None)
        self.error_id = error_id


class Unreachable(errors.Unavailable):
    """Nobody answered: no connection, one that broke, or silence for too long."""


class TaskFailed(MlaasError):
    """The task failed or was cancelled; `task` is what is known of it."""

    def __init__(self, task: Task) -> None:
        error = task.error
        detail = error.detail if error else f"the task was {task.task_status}"
        super().__init__(detail, field=error.field if error else None, remedy=error.remedy if error else None)
        self.task = task


class StreamBroken(MlaasError):
    """A row got no answer; `__cause__` is why. Of a stream, all rows before `row` (from 0) have been given out."""

    def __init__(self, row: int, cause: MlaasError, go_on: str | None = None) -> None:
        named = cause.field and cause.field.rpartition(".")[2].isdecimal()  # a place in one batch
        field = f"texts.{row}" if named else cause.field
        super().__init__(
            f"row {row}: {cause.detail}", field=field, remedy=_resumption(cause, go_on or f"Go on from there with start={row}.")
        )
        self.row = row


def from_problem(problem: Mapping[str, Any]) -> MlaasError:
    """The exception for problem JSON (RFC 9457), as an HTTP answer or an event has it."""
    detail, status = str(problem.get("detail") or problem.get("title") or "the request was refused"), int(problem.get("status") or 500)
    kind = _named(str(problem.get("type", ""))) or _BY_STATUS.get(status)
    if kind is None and not 400 <= status < 500:
        return _noted(Defect(detail, error_id=problem.get("error_id")))
    kind = kind or errors.InvalidRequest
    said = {"field": problem.get("field"), "remedy": problem.get("remedy")}
    if issubclass(kind, errors.Conflict):
        return _noted(kind(detail, **said, dependants=problem.get("dependants") or ()))
    return _noted(kind(detail, **said))


def from_status(status: int, where: str) -> MlaasError:
    """The exception for an answer that is no problem of the platform's: something else listens there, or stands in between."""
    return from_problem({"status": status, "detail": f"{where} answered with status {status}"})


def _named(urn: str) -> type[MlaasError] | None:
    """`urn:mlaas:problem:not-found` is NotFound."""
    if not urn.startswith(_URN):
        return None
    name = re.sub(r"(?:^|-)([a-z])", lambda found: found[1].upper(), urn.removeprefix(_URN))
    return next((kind for kind in {*_BY_STATUS.values(), errors.QuotaExceeded, errors.StoreAway} if kind.__name__ == name), None)


def _noted(error: MlaasError) -> MlaasError:
    """A traceback says the field and the remedy as well."""
    for note in (f"field: {error.field}" if error.field else "", error.remedy or ""):
        if note:
            error.add_note(note)
    return error


def _resumption(cause: MlaasError, go_on: str) -> str:
    return f"{cause.remedy.rstrip('.')}. {go_on}" if cause.remedy else go_on
