"""The ledger: what an event gets when it is delivered again, keeps failing, kills its process, or is replayed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cloudevents.http import CloudEvent

from mlaas import events
from mlaas.errors import InvalidRequest, StoreAway, Unavailable
from mlaas.ledger import Ledger
from mlaas.testing.memory_documents import MemoryDocuments

REQUEST = {"model": {"path": "m", "objective": "masked-lm"}, "$odd": 2**70}


class Killed(BaseException):
    """Stands for kill -9: nothing runs after it."""


def cause(id: str = "r-1", capability: str = "train") -> CloudEvent:
    return events.new(capability, REQUEST, id=id)


def away() -> CloudEvent:
    raise Unavailable("the object store is away", field="dataset.path", remedy="Wait.")


def killed() -> CloudEvent:
    raise Killed


def accepted(event: CloudEvent) -> Callable[[], CloudEvent]:
    return lambda: events.reply(event, "train", "accepted", {"task_id": "t"})


def reply_of(ledger: Ledger, event: CloudEvent, act: Callable[[], CloudEvent | None]) -> Any:
    reply = ledger.act("train", event, act, error_id="e-1")
    return events.to_json(reply) if reply else None


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(MemoryDocuments(), limit=3, patience=0.2)


def exhaust(ledger: Ledger, event: CloudEvent, act: Callable[[], CloudEvent], error: type[BaseException]) -> None:
    for _ in range(ledger.limit):
        with pytest.raises(error):
            reply_of(ledger, event, act)


def test_a_done_event_is_not_acted_on_again_and_gets_the_same_reply_to_the_byte(ledger: Ledger) -> None:
    first = reply_of(ledger, cause(), accepted(cause()))
    assert [reply_of(ledger, cause(), killed) for _ in range(10)] == [first] * 10
    [entry] = ledger.get("r-1")
    assert (entry.status, entry.attempts) == ("done", 1)


def test_deliveries_at_once_beyond_the_limit_all_get_the_one_reply(ledger: Ledger) -> None:
    together = threading.Barrier(ledger.limit)

    def slow() -> CloudEvent:
        together.wait(5)
        return accepted(cause())()

    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: reply_of(ledger, cause(), slow), range(8)))
    assert all(reply == replies[0] for reply in replies)
    assert replies[0]["type"] == "it.infn.mlaas.train.accepted.v1"
    assert ledger.parked() == []


def test_an_event_that_keeps_failing_is_parked_with_its_last_reason_and_answered(ledger: Ledger) -> None:
    exhaust(ledger, cause(), away, Unavailable)
    answers = [reply_of(ledger, cause(), killed) for _ in range(3)]
    assert answers[1:] == answers[:1] * 2
    assert answers[0]["type"] == "it.infn.mlaas.train.failed.v1"
    assert answers[0]["causationid"] == "r-1"
    assert answers[0]["data"] == {
        "type": "urn:mlaas:problem:parked",
        "title": "Parked",
        "status": 503,
        "detail": "the event failed 3 times and is parked: the object store is away",
        "field": "dataset.path",
        "remedy": "An operator replays it with `mlaas events replay r-1`.",
    }
    [entry] = ledger.parked()
    assert (entry.event_id, entry.capability, entry.status, entry.attempts) == ("r-1", "train", "parked", 3)
    assert entry.reason["detail"] == "the object store is away"
    assert events.to_json(entry.event)["data"] == REQUEST
    assert ledger.parked_count() == 1


def test_an_attempt_that_killed_its_process_is_counted_and_the_reason_says_so(ledger: Ledger) -> None:
    exhaust(ledger, cause(), killed, Killed)
    assert (
        "the process ended, or lost the document store, while it handled the event" in reply_of(ledger, cause(), killed)["data"]["detail"]
    )


def test_the_last_reason_counts_also_when_the_last_attempt_left_none(ledger: Ledger) -> None:
    for act, error in ((away, Unavailable), (away, Unavailable), (killed, Killed)):
        with pytest.raises(error):
            reply_of(ledger, cause(), act)
    assert "the process ended" in reply_of(ledger, cause(), killed)["data"]["detail"]


def test_an_attempt_that_lost_the_document_store_asks_it_for_nothing_more(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> CloudEvent:
        for name in ("get", "replace", "insert"):
            monkeypatch.setattr(type(ledger.documents), name, lambda *_: pytest.fail("the store was asked again"))
        raise StoreAway("the document store cannot be used now")

    with pytest.raises(StoreAway):
        reply_of(ledger, cause(), lost)
    monkeypatch.undo()
    [entry] = ledger.get("r-1")
    assert (entry.status, entry.attempts) == ("open", 1)


def test_a_defect_is_recorded_by_its_error_id_and_never_by_its_text(ledger: Ledger) -> None:
    def broken() -> CloudEvent:
        raise RuntimeError("secret /etc/passwd")

    exhaust(ledger, cause(), broken, RuntimeError)
    answer = reply_of(ledger, cause(), killed)
    assert answer["data"]["error_id"] == "e-1"
    assert "secret" not in str(answer) + str(ledger.parked())


def test_an_event_that_nobody_waits_for_is_parked_without_a_reply(ledger: Ledger) -> None:
    followed = events.build("it.infn.mlaas.train.succeeded.v1", "/mlaas/train", {}, id="done")
    exhaust(ledger, followed, away, Unavailable)
    assert reply_of(ledger, followed, killed) is None
    assert [entry.event_id for entry in ledger.parked()] == ["done"]


def test_a_replayed_event_has_all_its_attempts_again_and_is_listed_until_it_is_delivered(ledger: Ledger) -> None:
    exhaust(ledger, cause(), away, Unavailable)
    first = reply_of(ledger, cause(), away)
    [entry] = ledger.parked()
    ledger.replay(entry.key)
    assert [(one.status, one.attempts) for one in ledger.parked()] == [("replayed", 0)]
    exhaust(ledger, cause(), away, Unavailable)
    assert ledger.parked() == []
    again = reply_of(ledger, cause(), away)
    assert again["id"] != first["id"]  # who reads by id sees both failures
    ledger.replay(entry.key)
    assert reply_of(ledger, cause(), accepted(cause()))["type"] == "it.infn.mlaas.train.accepted.v1"
    assert ledger.parked() == []
    ledger.replay(entry.key)  # too late: it is done
    assert [one.status for one in ledger.get("r-1")] == ["done"]


def test_a_success_that_comes_after_the_parking_makes_the_event_done(ledger: Ledger) -> None:
    exhaust(ledger, cause("r-1"), killed, Killed)

    def late() -> CloudEvent:
        for _ in range(2):
            with pytest.raises(Killed):
                reply_of(ledger, cause("r-2"), killed)
        assert reply_of(ledger, cause("r-2"), killed)["data"]["status"] == 503
        return accepted(cause("r-2"))()

    assert reply_of(ledger, cause("r-2"), late)["type"] == "it.infn.mlaas.train.accepted.v1"
    assert [entry.status for entry in ledger.get("r-2")] == ["done"]


def test_data_that_no_json_can_say_are_counted_as_well(ledger: Ledger) -> None:
    event = CloudEvent({"type": events.event_type("train", "requested"), "source": "/s", "id": "odd"}, {"a": object()})
    exhaust(ledger, event, killed, Killed)
    assert reply_of(ledger, event, killed)["data"]["status"] == 503
    assert ledger.parked()[0].event is None


def test_the_same_event_is_counted_for_each_capability_by_itself(ledger: Ledger) -> None:
    exhaust(ledger, cause(), away, Unavailable)
    assert ledger.act("index", cause(), lambda: None, error_id="e") is None
    assert {entry.capability: entry.status for entry in ledger.get("r-1")} == {"train": "open", "index": "done"}


def test_a_store_that_is_away_lets_nothing_be_done(ledger: Ledger) -> None:
    class Away(MemoryDocuments):
        def get(self, *_: Any) -> Any:
            raise Unavailable("the document store cannot be used now")

    with pytest.raises(Unavailable):
        Ledger(Away()).act("train", cause(), killed, error_id="e")


def test_an_event_that_the_ledger_does_not_know_cannot_be_replayed(ledger: Ledger) -> None:
    with pytest.raises(InvalidRequest, match="no such event"):
        ledger.replay("absent")
