"""What a client does, without how: generators that yield steps, and the two ways to take them.

Everything with more than one request in it (retries, tasks, uploads) is a generator that yields what is to be done and gets what
came of it. `run` takes the steps one after the other; `run_async` awaits them. So nothing is written twice.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeAlias, TypeVar

from ..errors import MlaasError

__all__ = ["Answer", "Ask", "Awaited", "Blocking", "Look", "Pause", "Performer", "Reply", "Request", "Step", "Steps", "run", "run_async"]

P = ParamSpec("P")
T = TypeVar("T")
O = TypeVar("O")  # noqa: E741 - the object that a method belongs to


@dataclass(frozen=True, kw_only=True)
class Request:
    """An HTTP request. `body` is bytes or a file, `to` the file that the body of a 200 or 206 goes to, `timeout` in seconds of silence."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | Path | None = None
    to: Path | None = None
    moved: Callable[[int], None] | None = None
    timeout: float = 60.0


@dataclass(frozen=True)
class Reply:
    """What came back; the names of `headers` are lowercase."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Pause:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Ask:
    """Ask a function, by HTTP or by an event; `key` makes the same request the same work however often it is sent."""

    capability: str
    request: Mapping[str, Any]
    key: str


@dataclass(frozen=True)
class Look:
    """See how far a task is, or cancel it."""

    task_id: str
    cancel: bool = False


@dataclass(frozen=True)
class Answer:
    """What came back, how long it took (seconds), and where the time went (the Server-Timing text)."""

    data: dict[str, Any]
    seconds: float
    timing: str = ""


Step: TypeAlias = Request | Pause | Ask | Look
Steps: TypeAlias = Generator[Step, Any, T]


class Performer(Protocol):
    """Who takes steps: a client, or what belongs to one."""

    def perform(self, step: Step) -> Any:
        """What came of `step`: nothing, or for a client whose calls are awaited, a coroutine. Raises MlaasError."""


def run(steps: Steps[T], perform: Callable[[Step], Any]) -> T:
    """Take all steps, and give what the generator returns."""
    try:
        step = next(steps)
        while True:
            try:
                outcome = perform(step)
            except MlaasError as error:
                step = steps.throw(error)
            else:
                step = steps.send(outcome)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        steps.close()


async def run_async(steps: Steps[T], perform: Callable[[Step], Awaitable[Any]]) -> T:
    """As `run`, and others go on meanwhile."""
    try:
        step = next(steps)
        while True:
            try:
                outcome = await perform(step)
            except MlaasError as error:
                step = steps.throw(error)
            else:
                step = steps.send(outcome)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        steps.close()


class Blocking(Generic[P, T]):
    """A method that takes the steps of a generator function, whose first argument is the object."""

    def __init__(self, steps: Callable[Concatenate[Any, P], Steps[T]]) -> None:
        self._steps = steps
        self.__doc__ = steps.__doc__

    def __get__(self, owner: Performer, kind: type | None = None) -> Callable[P, T]:
        def method(*args: P.args, **kwargs: P.kwargs) -> T:
            return run(self._steps(owner, *args, **kwargs), owner.perform)

        return _like(method, self._steps)


class Awaited(Generic[P, T]):
    """The same, to be awaited."""

    def __init__(self, steps: Callable[Concatenate[Any, P], Steps[T]]) -> None:
        self._steps = steps
        self.__doc__ = steps.__doc__

    def __get__(self, owner: Performer, kind: type | None = None) -> Callable[P, Coroutine[Any, Any, T]]:
        async def method(*args: P.args, **kwargs: P.kwargs) -> T:
            return await run_async(self._steps(owner, *args, **kwargs), owner.perform)

        return _like(method, self._steps)


def _like(method: O, steps: Callable[..., Any]) -> O:
    """`method` with the name, the docstring and the signature of `steps`, for help() and notebooks."""
    functools.update_wrapper(method, steps, assigned=("__name__", "__qualname__", "__doc__", "__module__"), updated=())  # type: ignore[arg-type]
    signature = inspect.signature(steps)
    returned = getattr(signature.return_annotation, "__args__", None)
    parameters = list(signature.parameters.values())[1:]
    method.__signature__ = signature.replace(parameters=parameters, return_annotation=returned[0] if returned else inspect.Signature.empty)  # type: ignore[attr-defined]
    return method
