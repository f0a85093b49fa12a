"""Long work waits for what is away, instead of throwing hours of computing away for an outage of minutes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from .errors import Unavailable

__all__ = ["persist"]

T = TypeVar("T")

_FIRST_SECONDS, _LONGEST_SECONDS = 0.5, 10.0

log = logging.getLogger("mlaas")


def persist(
    call: Callable[[], T],
    seconds: float,
    *,
    between: Callable[[], None] = lambda: None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """The result of `call`, tried again while it raises Unavailable, for `seconds`; then that is raised.

    `between` runs before each further try and may raise to give up. The wait doubles from half a second to ten.
    """
    deadline, wait = clock() + seconds, _FIRST_SECONDS
    while True:
        try:
            return call()
        except Unavailable as error:
            if clock() + wait > deadline:
                raise
            log.warning("work.waits", extra={"fields": {"reason": error.detail, "seconds": wait}})
        sleep(wait)
        between()
        wait = min(wait * 2, _LONGEST_SECONDS)
