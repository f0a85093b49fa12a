"""From a request to its completion event, killed before or after any single effect, twice: nothing is lost, nothing is done twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from cloudevents.http import CloudEvent

from mlaas import events, outbox
from mlaas.documents import Documents, Stored
from mlaas.journal import Journal
from mlaas.ledger import Ledger
from mlaas.settings import Settings
from mlaas.tasks import Superseded, Tasks
from mlaas.testing.memory_documents import MemoryDocuments

T = TypeVar("T")
REQUEST = {"model": {"path": "m", "objective": "masked-lm"}}


class Killed(BaseException):
    """kill -9: nothing of the process runs after it."""


@dataclass
class Life:
    """One life of the processes: it ends at its call number `ends_at`, before the effect, or after it and before it is heard of."""

    ends_at: int = 0
    after_the_effect: bool = False
    calls: int = 0

    def call(self, effect: Callable[[], T]) -> T:
        self.calls += 1
        if self.calls == self.ends_at and not self.after_the_effect:
            raise Killed
        result = effect()
        if self.calls == self.ends_at:
            raise Killed
        return result


@dataclass
class MortalDocuments:
    """What a process sees of the store."""

    store: Documents
    life: Life

    def insert(self, collection: str, key: str, body: Mapping[str, Any], *, after: int = 0) -> bool:
        return self.life.call(lambda: self.store.insert(collection, key, body, after=after))

    def get(self, collection: str, key: str) -> Stored | None:
        return self.life.call(lambda: self.store.get(collection, key))

    def replace(self, collection: str, stored: Stored, body: Mapping[str, Any]) -> bool:
        return self.life.call(lambda: self.store.replace(collection, stored, body))

    def find(self, collection: str, match: Mapping[str, Any], **page: Any) -> list[Stored]:
        return self.life.call(lambda: self.store.find(collection, match, **page))

    def count(self, collection: str, match: Mapping[str, Any]) -> int:
        return self.life.call(lambda: self.store.count(collection, match))

    def close(self) -> None: ...


@dataclass
class World:
    """What outlives the processes: the store and the Broker's topic."""

    store: MemoryDocuments = field(default_factory=MemoryDocuments)
    topic: list[str] = field(default_factory=list)

    def live(self, life: Life) -> None:
        """Deliver the request, run the job of the accepted event, and relay, as the processes do."""
        tasks = Tasks(MortalDocuments(self.store, life))

        def publish(event: CloudEvent, _: Settings | None = None) -> None:
            life.call(lambda: self.topic.append(json.dumps(events.to_json(event))))

        accepted = self._accepted(tasks)
        publish(accepted)
        if run := tasks.begin(accepted["subject"]):
            tasks.report(run, progress={"phase": "train", "percent": 50.0})
            tasks.finish(run, "succeeded", result={"model": {"name": "m"}})
        outbox.flush(tasks, Settings(), publish)

    def _accepted(self, tasks: Tasks) -> CloudEvent:
        cause = events.new("train", REQUEST, id="r-1")
        ledger = Ledger(tasks.documents, limit=5, patience=0)
        accepted = ledger.act("train", cause, lambda: tasks.accept("train", REQUEST, cause, publish=False), error_id="e")
        assert accepted
        return accepted

    def relay(self) -> None:
        outbox.flush(Tasks(self.store), Settings(), lambda event, _: self.topic.append(json.dumps(events.to_json(event))))

    def published(self, state: str) -> list[str]:
        return [text for text in self.topic if json.loads(text)["type"] == events.event_type("train", state)]


def check(world: World) -> None:
    tasks = Tasks(world.store)
    [task] = tasks.find()[0]
    assert task["task_status"] == "succeeded"
    assert list(tasks.owed()) == []
    assert [entry.status for entry in Ledger(world.store).get("r-1")] == ["done"]
    assert len(set(world.published("accepted"))) == 1
    completed = world.published("succeeded")
    assert completed
    assert len(set(completed)) == 1  # the same id, and the same content to the byte
    [kept] = Journal(world.store).find(type="train.succeeded")
    assert json.dumps(events.to_json(kept.event)) == completed[0]
    assert (kept.id, kept.task_id) == (json.loads(completed[0])["id"], task["task_id"])
    assert not world.published("failed")


def effects_of_an_undisturbed_life() -> int:
    life = Life()
    World().live(life)
    return life.calls


def test_an_undisturbed_life_makes_one_of_each() -> None:
    world = World()
    world.live(Life())
    check(world)
    assert len(world.topic) == 2


@pytest.mark.parametrize("after", [False, True], ids=["before the effect", "after the effect"])
def test_killed_once_at_any_point_the_next_life_brings_it_to_its_end(after: bool) -> None:
    count = effects_of_an_undisturbed_life()
    assert count > 15
    for point in range(1, count + 1):
        world = World()
        with pytest.raises(Killed):
            world.live(Life(point, after))
        world.live(Life())
        check(world)


@pytest.mark.parametrize("first_after", [False, True])
@pytest.mark.parametrize("second_after", [False, True])
def test_killed_twice_at_any_two_points_the_third_life_brings_it_to_its_end(first_after: bool, second_after: bool) -> None:
    for first in range(1, effects_of_an_undisturbed_life() + 1):
        for second in range(1, 100):
            world, life = World(), Life(second, second_after)
            with pytest.raises(Killed):
                world.live(Life(first, first_after))
            try:
                world.live(life)
            except Killed:
                world.live(Life())
                check(world)
            else:
                check(world)
                break
        else:
            pytest.fail("the second life never ended by itself")


@pytest.mark.parametrize("after", [False, True])
def test_a_relay_alone_publishes_what_a_job_left_at_any_point(after: bool) -> None:
    for point in range(1, effects_of_an_undisturbed_life() + 1):
        world = World()
        with pytest.raises(Killed):
            world.live(Life(point, after))
        final = Tasks(world.store).find(status="succeeded")[0]
        world.relay()
        assert bool(world.published("succeeded")) == bool(final)
        if final:
            assert len(set(world.published("succeeded"))) == 1
            assert len(Journal(world.store).find(type="train.succeeded")) == 1


def test_two_jobs_of_one_task_end_it_once() -> None:
    world = World()
    tasks = Tasks(world.store)
    accepted = world._accepted(tasks)
    first, second = tasks.begin(accepted["subject"]), tasks.begin(accepted["subject"])
    assert first
    assert second
    tasks.finish(second, "succeeded")
    with pytest.raises(Superseded):
        tasks.finish(first, "failed", error={"detail": "late"})
    world.relay()
    assert [json.loads(text)["type"] for text in world.topic] == [events.event_type("train", "succeeded")]
