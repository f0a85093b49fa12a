"""Tasks: one for each cause, one final state, and events that are owed until they are published."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlaas import events
from mlaas.documents import connect
from mlaas.errors import InvalidRequest, NotFound
from mlaas.heartbeats import Watch
from mlaas.tasks import MAX_ATTEMPTS, Cancelled, Ownership, Superseded, Tasks

REQUEST = {"model": {"path": "m", "objective": "masked-lm"}}


@pytest.fixture
def tasks(tmp_path: Path) -> Iterator[Tasks]:
    documents = connect(f"sqlite:///{tmp_path}/documents.sqlite")
    yield Tasks(documents)
    documents.close()


def cause(id: str = "1") -> object:
    return events.new("train", REQUEST, id=id)


def test_an_event_delivered_five_times_at_once_makes_one_task_and_one_reply(tasks: Tasks) -> None:
    with ThreadPoolExecutor(5) as pool:
        replies = list(pool.map(lambda _: events.to_json(tasks.accept("train", REQUEST, cause(), publish=False)), range(5)))
    assert all(reply == replies[0] for reply in replies)
    assert len(tasks.find()[0]) == 1


def test_two_causes_make_two_tasks_and_two_parts_of_one_cause_as_well(tasks: Tasks) -> None:
    ids = {
        tasks.accept("index", REQUEST, cause(id), part=part, publish=False)["subject"] for id, part in (("1", ""), ("2", ""), ("1", "x"))
    }
    assert len(ids) == 3


def test_the_accepted_event_belongs_to_its_cause_and_its_task(tasks: Tasks) -> None:
    accepted = tasks.accept("train", REQUEST, cause("r1"), publish=False)
    assert accepted["type"] == "it.infn.mlaas.train.accepted.v1"
    assert accepted["causationid"] == accepted["correlationid"] == "r1"
    assert accepted["subject"] == accepted["partitionkey"] == accepted.data["task_id"]


def test_a_finished_task_owes_its_completion_event_until_it_is_published(tasks: Tasks) -> None:
    accepted = tasks.accept("train", REQUEST, cause(), publish=False)
    assert list(tasks.owed()) == []
    run = tasks.begin(accepted["subject"])
    tasks.finish(run, "succeeded", result={"model": {"name": "m"}})
    [(task_id, event)] = tasks.owed()
    assert event["type"] == "it.infn.mlaas.train.succeeded.v1"
    assert event["causationid"] == accepted["id"]
    assert event["correlationid"] == "1"
    assert event.data["result"] == {"model": {"name": "m"}}
    tasks.published(task_id, event["id"])
    assert list(tasks.owed()) == []


def test_a_task_asked_for_by_http_owes_its_accepted_event(tasks: Tasks) -> None:
    accepted = tasks.accept("train", REQUEST, cause(), publish=True)
    assert [event["id"] for _, event in tasks.owed()] == [accepted["id"]]


def test_a_second_run_supersedes_the_first_which_can_no_longer_report_or_finish(tasks: Tasks) -> None:
    task_id = tasks.accept("train", REQUEST, cause(), publish=False)["subject"]
    first, second = tasks.begin(task_id), tasks.begin(task_id)
    assert (first.attempt, second.attempt) == (1, 2)
    with pytest.raises(Superseded):
        tasks.report(first, progress={"phase": "train", "percent": 1.0})
    with pytest.raises(Superseded):
        tasks.finish(first, "succeeded")
    tasks.finish(second, "succeeded")
    assert tasks.get(task_id)["task_status"] == "succeeded"


def test_a_final_state_never_changes(tasks: Tasks) -> None:
    task_id = tasks.accept("train", REQUEST, cause(), publish=False)["subject"]
    run = tasks.begin(task_id)
    tasks.finish(run, "failed", error={"detail": "why"})
    with pytest.raises(Superseded):
        tasks.finish(run, "succeeded")
    assert tasks.begin(task_id) is None
    assert tasks.get(task_id)["error"] == {"detail": "why"}
    with pytest.raises(InvalidRequest, match="has ended"):
        tasks.cancel(task_id)


def test_a_run_that_is_killed_too_often_is_marked_failed_with_the_reason(tasks: Tasks) -> None:
    task_id = tasks.accept("train", REQUEST, cause(), publish=False)["subject"]
    for _ in range(MAX_ATTEMPTS):
        assert tasks.begin(task_id)
    assert tasks.begin(task_id) is None
    assert "killed" in tasks.get(task_id)["error"]["detail"]
    assert [event["type"] for _, event in tasks.owed()] == ["it.infn.mlaas.train.failed.v1"]


def test_an_interrupted_run_gives_its_task_back_without_counting_the_attempt(tasks: Tasks) -> None:
    task_id = tasks.accept("train", REQUEST, cause(), publish=False)["subject"]
    for _ in range(MAX_ATTEMPTS + 2):
        tasks.release(tasks.begin(task_id))
    assert tasks.get(task_id)["task_status"] == "accepted"


def test_a_waiting_task_is_cancelled_at_once_and_says_so_as_an_event(tasks: Tasks) -> None:
    task_id = tasks.accept("train", REQUEST, cause(), publish=False)["subject"]
    assert tasks.cancel(task_id)["task_status"] == "cancelled"
    assert [event["type"] for _, event in tasks.owed()] == ["it.infn.mlaas.train.cancelled.v1"]


def test_a_running_task_learns_of_its_cancellation_at_its_next_report(tasks: Tasks) -> None:
    run = tasks.begin(tasks.accept("train", REQUEST, cause(), publish=False)["subject"])
    assert tasks.cancel(run.task_id)["task_status"] == "running"
    with pytest.raises(Cancelled):
        tasks.report(run)
    tasks.finish(run, "cancelled")
    assert tasks.get(run.task_id)["task_status"] == "cancelled"


class Hours:
    """A wall clock that the test sets."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 29, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def test_a_run_that_is_silent_for_long_is_expired_and_can_no_longer_finish(tasks: Tasks) -> None:
    run = tasks.begin(tasks.accept("train", REQUEST, cause(), publish=False)["subject"])
    seconds = iter(range(0, 1000, 10))
    watch = Watch(60, clock=lambda: next(seconds))
    assert [tasks.expire(watch) for _ in range(7)] == [[]] * 7  # 60 s
    assert tasks.expire(watch) == [run.task_id]
    assert "killed" in tasks.get(run.task_id)["error"]["detail"]
    with pytest.raises(Superseded):
        tasks.finish(run, "succeeded")


@pytest.mark.parametrize("jump", [timedelta(hours=1), timedelta(hours=-1)])
def test_a_clock_that_jumps_makes_no_run_look_dead_and_no_elapsed_time_negative(tasks: Tasks, jump: timedelta) -> None:
    clock = Hours()
    tasks = Tasks(tasks.documents, clock=clock)
    seconds = iter(range(0, 10_000, 10))
    watch = Watch(60, clock=lambda: next(seconds))
    run = tasks.begin(tasks.accept("train", REQUEST, cause(), publish=False)["subject"])
    assert tasks.expire(watch) == []
    clock.now += jump
    for _ in range(20):
        tasks.report(run)
        assert tasks.expire(watch) == []
    tasks.finish(run, "succeeded")
    assert tasks.get(run.task_id)["stats"]["elapsed"] == max(0.0, jump.total_seconds())


def test_the_public_task_shows_nothing_of_the_outbox(tasks: Tasks) -> None:
    task_id = tasks.accept("train", REQUEST, cause(), publish=True)["subject"]
    assert set(tasks.get(task_id)) == {
        "task_id",
        "task_status",
        "capability",
        "request",
        "stats",
        "progress",
        "history",
        "evaluation",
        "dataset",
    }


def test_a_task_that_does_not_exist_is_not_found(tasks: Tasks) -> None:
    with pytest.raises(NotFound):
        tasks.get("absent")


def test_an_event_that_would_be_too_large_leaves_the_history_out_and_the_task_keeps_it(tasks: Tasks) -> None:
    task_id = tasks.accept("train", REQUEST, cause(), publish=False)["subject"]
    run = tasks.begin(task_id)
    assert run
    history = {"loss": [0.123456789] * 30_000}
    tasks.finish(run, "succeeded", history=history, evaluation={"accuracy": 1.0})
    event = next(event for _, event in tasks.owed() if event["type"].endswith(".succeeded.v1"))
    assert event.data["omitted"] == ["history"]
    assert "history" not in event.data
    assert event.data["evaluation"] == {"accuracy": 1.0}
    assert tasks.get(task_id)["history"]["loss"] == history["loss"]


def test_a_claimed_task_is_whose_the_claim_says_through_all_of_its_events(tasks: Tasks) -> None:
    asked = events.new("train", {**REQUEST, "owner": "eve"}, source=events.HTTP_SOURCE, id="k1")
    unclaimed = tasks.accept("index", REQUEST, asked, publish=False)
    task_id = tasks.claim("train", "k1", Ownership("group:physics", "ada"))
    tasks.claim("train", "k1", Ownership("eve", "eve"))
    accepted = tasks.accept("train", REQUEST, asked, publish=True)
    run = tasks.begin(task_id)
    tasks.finish(run, "succeeded")
    assert accepted["subject"] == task_id
    assert [(event.data["owner"], event.data["asked_by"]) for _, event in tasks.owed()] == [("group:physics", "ada")] * 2
    assert tasks.ownership(task_id) == Ownership("group:physics", "ada")
    assert tasks.ownership(unclaimed["subject"]) == tasks.ownership("absent") == Ownership()


def test_an_event_makes_a_task_with_the_same_ids_whether_it_is_claimed_or_not(tasks: Tasks, tmp_path: Path) -> None:
    cause = events.new("train", REQUEST, source=events.HTTP_SOURCE, id="k1")
    other = connect(f"sqlite:///{tmp_path}/other.sqlite")
    tasks.claim("train", "k1", Ownership("ada", "ada"))
    claimed, unclaimed = (one.accept("train", REQUEST, cause, publish=False) for one in (tasks, Tasks(other)))
    other.close()
    assert (claimed["id"], claimed["subject"]) == (unclaimed["id"], unclaimed["subject"])


def test_a_claim_of_a_request_over_http_is_none_of_an_event_with_the_same_id(tasks: Tasks) -> None:
    tasks.claim("train", "k1", Ownership("ada", "ada"))
    accepted = tasks.accept("train", REQUEST, events.new("train", REQUEST, source="/somewhere", id="k1"), publish=False)
    assert "owner" not in accepted.data


def test_tasks_are_found_and_counted_by_owner(tasks: Tasks) -> None:
    for id, owner in (("1", "ada"), ("2", "bob"), ("3", "group:physics"), ("4", None)):
        tasks.accept("train", REQUEST, cause(id), publish=False, ownership=Ownership(owner))
    assert [one["owner"] for one in tasks.find(owners=("ada", "group:physics"))[0]] == ["group:physics", "ada"]
    assert tasks.find(owners=("nobody",))[0] == []
    assert tasks.counts(("ada", "group:physics"))["accepted"] == 2
    assert tasks.counts()["accepted"] == 4
