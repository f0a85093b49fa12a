"""What a client does when nobody answers, without a network: a script says what comes of each request, and pauses take no time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from mlaas import errors
from mlaas.client import Defect, Retries, Unreachable
from mlaas.client.problems import from_problem
from mlaas.client.retries import retried
from mlaas.client.steps import Pause, Reply, Request, Step, run


class Script:
    """Answers requests as it is told, and keeps the pauses."""

    def __init__(self, outcomes: Iterable[int | Reply | Exception]) -> None:
        self.outcomes = iter(outcomes)
        self.requests: list[Request] = []
        self.pauses: list[float] = []

    def perform(self, step: Step) -> Any:
        if isinstance(step, Pause):
            return self.pauses.append(step.seconds)
        assert isinstance(step, Request)
        self.requests.append(step)
        outcome = next(self.outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome if isinstance(outcome, Reply) else Reply(outcome, {}, b"")


def play(*outcomes: int | Reply | Exception, retries: Retries | None = None, seconds: float = 60.0) -> tuple[Script, Reply | None]:
    script = Script(outcomes)
    steps = retried(lambda: Request(method="POST", url="http://x"), retries or Retries(), seconds)
    try:
        return script, run(steps, script.perform)
    except Unreachable:
        return script, None


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_may_pass_is_tried_again(status: int) -> None:
    script, reply = play(status, Unreachable("gone"), 200)
    assert (reply and reply.status, len(script.requests)) == (200, 3)


@pytest.mark.parametrize("status", [200, 202, 400, 401, 404, 409, 412, 413, 422, 500])
def test_an_answer_that_would_be_the_same_is_not_asked_for_again(status: int) -> None:
    script, reply = play(status)
    assert (reply and reply.status, len(script.requests), script.pauses) == (status, 1, [])


def test_repetitions_are_bounded_and_the_last_answer_is_given() -> None:
    script, reply = play(*[503] * 10)
    assert (reply and reply.status, len(script.requests)) == (503, 4)
    script, reply = play(*[Unreachable("gone")] * 10, retries=Retries(times=1))
    assert (reply, len(script.requests)) == (None, 2)
    assert len(play(503, retries=Retries(times=0))[0].requests) == 1


def test_pauses_grow_up_to_a_longest_and_are_spread_by_chance() -> None:
    policy = Retries(times=6, first=1.0, longest=4.0)
    drawn = [[policy.pause(attempt) for _ in range(200)] for attempt in range(1, 7)]
    for pauses, longest in zip(drawn, (1, 2, 4, 4, 4, 4), strict=True):
        assert 0 <= min(pauses) < longest / 4
        assert longest * 0.75 < max(pauses) <= longest


@pytest.mark.parametrize(("header", "low", "high"), [("2", 2.0, 2.3), ("0.5", 0.5, 0.8), ("soon", 0.0, 0.3)])
def test_retry_after_is_believed_and_a_strange_one_is_not(header: str, low: float, high: float) -> None:
    script, _ = play(Reply(429, {"retry-after": header}, b""), 200)
    assert low <= script.pauses[0] <= high


def test_a_date_of_retry_after_that_has_passed_asks_for_no_pause() -> None:
    script, reply = play(Reply(503, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, b""), 200)
    assert (reply and reply.status) == 200
    assert script.pauses[0] < 0.3


def test_who_is_told_to_come_back_too_late_is_told_at_once() -> None:
    script, reply = play(Reply(503, {"retry-after": "3600"}, b""), 200, seconds=10.0)
    assert (reply and reply.status, script.pauses) == (503, [])


def test_an_attempt_waits_no_longer_than_the_call_may_take() -> None:
    script, _ = play(200, seconds=7.0)
    assert 6.5 < script.requests[0].timeout <= 7.0


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        ({"type": "urn:mlaas:problem:not-found", "status": 404}, errors.NotFound),
        ({"type": "urn:mlaas:problem:not-found", "status": 422}, errors.NotFound),
        ({"type": "urn:mlaas:problem:too-large", "status": 413}, errors.TooLarge),
        ({"type": "urn:mlaas:problem:unauthenticated", "status": 401}, errors.Unauthenticated),
        ({"type": "urn:mlaas:problem:overloaded", "status": 429}, errors.Overloaded),
        ({"type": "urn:mlaas:problem:store-away", "status": 503}, errors.StoreAway),
        ({"type": "urn:mlaas:problem:invalid-request", "status": 422}, errors.InvalidRequest),
        ({"type": "about:blank", "status": 412}, errors.Outdated),
        ({"status": 418}, errors.InvalidRequest),
        ({"type": "urn:mlaas:problem:defect", "status": 500, "error_id": "e"}, Defect),
        ({}, Defect),
    ],
)
def test_a_problem_is_the_exception_that_the_platform_raised(problem: dict[str, Any], kind: type[errors.MlaasError]) -> None:
    error = from_problem({"detail": "d", "field": "model.name", "remedy": "Look.", **problem})
    assert type(error) is kind
    assert error.detail == "d"
    if kind is not Defect:
        assert (error.field, error.remedy) == ("model.name", "Look.")
        assert error.__notes__ == ["field: model.name", "Look."]


def test_a_conflict_says_what_is_in_the_way() -> None:
    error = from_problem({"type": "urn:mlaas:problem:conflict", "status": 409, "dependants": [{"kind": "alias", "name": "production"}]})
    assert isinstance(error, errors.Conflict)
    assert error.dependants == [{"kind": "alias", "name": "production"}]
