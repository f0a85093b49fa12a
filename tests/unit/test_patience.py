"""Waiting for what is away."""

from __future__ import annotations

from typing import Any

import pytest

from mlaas.errors import InvalidRequest, Unavailable
from mlaas.patience import persist


class Clock:
    def __init__(self) -> None:
        self.now, self.waits = 0.0, list[float]()

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.waits.append(seconds)

    def options(self) -> dict[str, Any]:
        return {"sleep": self.sleep, "clock": lambda: self.now}


def failing(times: int) -> Any:
    left = iter([Unavailable("away")] * times)

    def call() -> str:
        if error := next(left, None):
            raise error
        return "done"

    return call


def test_what_is_away_for_a_while_is_waited_for_longer_and_longer() -> None:
    clock = Clock()
    assert persist(failing(7), 900, **clock.options()) == "done"
    assert clock.waits == [0.5, 1, 2, 4, 8, 10, 10]


def test_patience_ends_with_the_reason() -> None:
    clock = Clock()
    with pytest.raises(Unavailable, match="away"):
        persist(failing(1000), 30, **clock.options())
    assert 20 < clock.now <= 30


def test_what_can_never_succeed_is_not_tried_again() -> None:
    calls = []

    def call() -> None:
        calls.append(1)
        raise InvalidRequest("no")

    with pytest.raises(InvalidRequest):
        persist(call, 900, **Clock().options())
    assert calls == [1]


def test_between_two_tries_the_work_can_be_given_up() -> None:
    def cancelled() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        persist(failing(5), 900, between=cancelled, **Clock().options())
