"""Who waits for the answer to what this thread computes, and which requests have come in without having come to a model yet."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

__all__ = ["Caller", "arriving", "caller", "current"]

READ_SECONDS = 0.05  # a request that has not come to a model by then is busy with something else, e.g. a download


@dataclass(eq=False, kw_only=True)
class Caller:
    """Who waits for an answer, and has `waited` so many seconds.

    `gone` says whether they hung up, `deadline` (time.monotonic) until when they wait; `answered` is set when all is computed for them.
    """

    gone: Callable[[], bool] = lambda: False
    deadline: float = math.inf
    waited: float = 0.0
    arriving: bool = True
    since: float = field(default_factory=time.monotonic)
    answered: threading.Event = field(default_factory=threading.Event)

    def left(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return time.monotonic() > self.deadline or self.gone()

    def arrived(self) -> None:
        """The request has come to a model."""
        self.arriving = False
        _arriving.discard(self)


_current: ContextVar[Caller | None] = ContextVar("mlaas_caller", default=None)
_arriving: set[Caller] = set()  # adding, removing and copying are atomic


@contextmanager
def caller(one: Caller) -> Iterator[None]:
    """What the block asks of a model is for `one`."""
    token = _current.set(one)
    _arriving.add(one)
    try:
        yield
    finally:
        _arriving.discard(one)
        one.answered.set()
        _current.reset(token)


def current() -> Caller | None:
    """Who waits for what this thread computes, if anybody does."""
    return _current.get()


def arriving() -> bool:
    """Whether a request has just come in that may soon need a model."""
    now = time.monotonic()
    return any(now - each.since < READ_SECONDS for each in tuple(_arriving))
