"""Trying again: what failed for a moment, after pauses that grow, for a bounded time."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from .problems import Unreachable
from .steps import Pause, Reply, Request, Steps

__all__ = ["Retries", "retried"]

MOMENTARY = (429, 502, 503, 504)


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How often is tried again, and when: after a random part of `first` seconds, twice as much, ..., at most `longest`.

    An answer that says when to come back (Retry-After) is believed.
    """

    times: int = 3
    first: float = 0.25
    longest: float = 10.0

    def pause(self, attempt: int, asked: float | None = None) -> float:
        """Seconds until the next attempt, after `attempt` of them; a little more than was `asked` for, so that not all come at once."""
        spread = min(self.first * 2 ** (attempt - 1), self.longest)
        return spread * random.random() if asked is None else asked + self.first * random.random()  # noqa: S311 - no secret


def retried(make: Callable[[], Request], retries: Retries, seconds: float) -> Steps[Reply]:
    """Send what `make` gives until there is an answer that is no momentary failure, and give the last one there was.

    Nothing begins after `seconds`, pauses included. Raises Unreachable.
    """
    deadline, attempt = time.monotonic() + seconds, 0
    while True:
        attempt += 1
        outcome = yield from _attempted(make(), max(deadline - time.monotonic(), 0.05))
        if isinstance(outcome, Reply) and outcome.status not in MOMENTARY:
            return outcome
        pause = retries.pause(attempt, retry_after(outcome) if isinstance(outcome, Reply) else None)
        if attempt > retries.times or time.monotonic() + pause >= deadline:
            if isinstance(outcome, Unreachable):
                raise outcome
            return outcome
        yield Pause(pause)


def _attempted(request: Request, seconds: float) -> Steps[Reply | Unreachable]:
    try:
        reply: Reply = yield dataclasses.replace(request, timeout=min(request.timeout, seconds))
    except Unreachable as error:
        return error
    return reply


def retry_after(reply: Reply) -> float | None:
    """Seconds that an answer asks to wait: a number, or a date (RFC 9110)."""
    text = reply.headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        if text.replace(".", "", 1).isdigit():
            return float(text)
        return max((parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return None
