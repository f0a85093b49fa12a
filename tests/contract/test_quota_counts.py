"""What quotas promise, held against each document store: counts of replicas, limits that are set, and room for what is stored."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from mlaas.catalog import Catalog
from mlaas.catalog_api import quotas
from mlaas.catalog_api.access import Principal
from mlaas.catalog_api.quotas import Quotas
from mlaas.catalog_api.request_counts import MOST, Counts
from mlaas.documents import Documents
from mlaas.errors import QuotaExceeded, TooLarge
from mlaas.settings import Settings


@pytest.fixture(autouse=True)
def made(documents: Documents) -> None:
    """A store that is there: that many threads at once make it is another test's."""
    documents.get("quotas", "nobody")


def kept(documents: Documents, **settings: int) -> Quotas:
    return Quotas(documents, Settings(**settings))


def used(documents: Documents, owner: str = "ada") -> int:
    return kept(documents).shown(owner).requests_per_day.used


def taken(counts: Counts, of: Quotas, *owners: str) -> bool:
    try:
        counts.take(of, owners or ["ada"])
    except QuotaExceeded:
        return False
    return True


def test_as_many_requests_are_taken_as_the_quota_says_however_many_come_at_once(documents: Documents) -> None:
    counts, of = Counts(), kept(documents, quota_requests_per_day=37)
    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(lambda _: taken(counts, of), range(120))) == 37
    assert used(documents) == 37
    counts.forget()


def test_replicas_together_take_no_more_and_what_one_gives_back_another_takes(documents: Documents) -> None:
    of, replicas = kept(documents, quota_requests_per_day=200), [Counts(), Counts(), Counts()]
    with ThreadPoolExecutor(12) as pool:
        first = sum(pool.map(lambda number: taken(replicas[number % 3], of), range(150)))
    assert first == 150
    assert used(documents) >= 150
    for one in replicas:
        one.give_back()
    assert used(documents) == 150
    with ThreadPoolExecutor(12) as pool:
        rest = sum(pool.map(lambda number: taken(replicas[number % 3], of), range(150)))
    for one in replicas:
        one.give_back()
    rest += sum(taken(replicas[0], of) for _ in range(60))
    assert rest == 50
    for one in replicas:
        one.forget()


def test_few_requests_are_written_and_a_process_that_dies_has_counted_a_batch_too_many_at_most(documents: Documents) -> None:
    counts, of = Counts(), kept(documents, quota_requests_per_day=10_000)
    assert all(taken(counts, of) for _ in range(250))
    stored = documents.get(quotas.REQUESTS, "ada")
    assert stored
    assert stored.revision == 3
    counts.forget()  # as a process that is killed
    assert 250 <= used(documents) <= 250 + MOST
    again = Counts()
    assert taken(again, of)
    again.forget()  # else it gives back when the store is closed


def test_a_new_day_begins_at_midnight_in_utc(documents: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [datetime(2026, 3, 31, 23, 59, 50, tzinfo=UTC)]
    monkeypatch.setattr(quotas, "now", lambda: clock[0])
    counts, of = Counts(), kept(documents, quota_requests_per_day=20)
    assert sum(taken(counts, of) for _ in range(30)) == 20
    with pytest.raises(QuotaExceeded) as refused:
        counts.take(of, ["ada"])
    assert 10 <= refused.value.retry_after <= 11
    assert "2026-04-01T00:00:00Z" in str(refused.value.remedy)
    assert of.shown("ada").requests_per_day.resets == "2026-04-01T00:00:00Z"
    clock[0] = datetime(2026, 4, 1, 0, 0, 1, tzinfo=UTC)
    assert used(documents) == 0
    assert sum(taken(counts, of) for _ in range(30)) == 20
    counts.forget()


def test_a_request_counts_for_each_group_or_for_nobody(documents: Documents) -> None:
    counts, of = Counts(), kept(documents, quota_requests_per_day=10, quota_group_requests_per_day=3)
    ada, bob = (Principal(name, "user", frozenset({"physics"})).owners or () for name in ("ada", "bob"))
    assert [taken(counts, of, *ada), taken(counts, of, *bob), taken(counts, of, *ada)] == [True] * 3
    with pytest.raises(QuotaExceeded, match="the group physics has"):
        counts.take(of, bob)
    counts.give_back()
    assert (used(documents, "ada"), used(documents, "bob"), used(documents, "group:physics")) == (2, 1, 3)
    assert Principal("root", "admin", frozenset({"physics"})).owners is None
    assert Principal(None).owners == ()
    counts.forget()


def test_an_owners_limit_takes_the_place_of_the_settings_until_it_is_taken_back(documents: Documents) -> None:
    counts, of = Counts(), kept(documents, quota_requests_per_day=2, quota_group_storage_bytes=7)
    assert [taken(counts, of) for _ in range(3)] == [True, True, False]
    of.set("ada", {"requests_per_day": 4, "storage_bytes": None})
    assert [taken(counts, of) for _ in range(3)] == [True, True, False]
    assert (of.shown("ada").requests_per_day.own, of.shown("ada").storage_bytes.own) == (True, False)
    of.set("ada", {"requests_per_day": 0})
    assert all(taken(counts, of) for _ in range(50))
    of.set("ada", {})
    assert not taken(counts, of)
    assert (of.limit("group:x", "storage_bytes"), of.limit("x", "storage_bytes")) == (7, 0)
    counts.forget()


def publish(documents: Documents, name: str, size: int, owner: str | None) -> None:
    Catalog(documents).publish("datasets", name, f"{name}-{size}", {"files": {"a.csv": {"size": size}}}, about={"owner": owner})


def test_the_versions_of_what_somebody_owns_are_added_up(documents: Documents) -> None:
    for name, size, owner in (("a", 5, "ada"), ("a", 7, "ada"), ("b", 11, "group:physics"), ("c", 13, "bob"), ("d", 17, None)):
        publish(documents, name, size, owner)
    Catalog(documents).publish("indexes", "i", "i", {"bytes": 100}, about={"owner": "ada"})
    Catalog(documents).publish("indexes", "old", "old", {}, about={"owner": "ada"})
    of = kept(documents, quota_storage_bytes=120)
    assert [of.stored_bytes(owner) for owner in ("ada", "group:physics", "bob", "eve")] == [112, 11, 13, 0]
    assert (of.room("ada"), of.room("group:physics"), of.room(None)) == (8, None, None)
    assert of.owners() == ["ada", "bob", "group:physics"]
    Catalog(documents).delete("datasets", "a", "1")
    assert of.room("ada") == 13


def test_uploads_at_once_do_not_take_the_same_room(documents: Documents) -> None:
    of = kept(documents, quota_storage_bytes=100)

    def store(number: int) -> bool:
        try:
            with of.held("ada", 30):
                time.sleep(0.2)  # as long as all the others ask
                publish(documents, f"d{number}", 30, "ada")
        except TooLarge:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        together = sum(pool.map(store, range(8)))
    assert 1 <= together <= 3, "one that is just being let go of may count twice for a moment"
    assert together + sum(store(number) for number in range(10, 14)) == 3
    assert of.stored_bytes("ada") == 90


def test_room_that_nobody_lets_go_of_is_free_after_an_hour(documents: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    of = kept(documents, quota_storage_bytes=100)
    with of.held("ada", 80):
        with pytest.raises(TooLarge, match="100 bytes"), of.held("ada", 30):
            pass
        later = quotas.time.time() + 3601
        monkeypatch.setattr(quotas.time, "time", lambda: later)
        with of.held("ada", 30):
            pass


def train(documents: Documents, id: str, begun: datetime, seconds: float, status: str = "succeeded", **whose: str) -> None:
    """A training as its document has it, begun a minute after it was asked for."""
    stats = {"submitted": (begun - timedelta(minutes=1)).isoformat(timespec="milliseconds"), "started": begun.isoformat()}
    ended = (begun + timedelta(seconds=seconds)).isoformat()
    stats |= {"heartbeat": ended} if status in ("running", "accepted") else {"heartbeat": ended, "finished": ended}
    documents.insert("tasks", id, {"task_id": id, "capability": "train", "task_status": status, "stats": stats, **whose})


def test_trainings_count_as_long_as_they_ran_within_30_days(documents: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = datetime(2026, 7, 31, 12, tzinfo=UTC)
    monkeypatch.setattr(quotas, "now", lambda: moment)
    days = timedelta(days=1)
    train(documents, "older", moment - 61 * days, 1e6, asked_by="ada")
    train(documents, "before", moment - 40 * days, 100, asked_by="ada")
    train(documents, "across", moment - 30 * days - timedelta(seconds=60), 100, asked_by="ada")
    train(documents, "done", moment - 3 * days, 200, asked_by="ada", owner="group:physics")
    train(documents, "failed", moment - 2 * days, 5, "failed", asked_by="ada", owner="ada")
    train(documents, "stopped", moment - 2 * days, 7, "accepted", asked_by="ada", owner="ada")
    train(documents, "running", moment - timedelta(seconds=30), 3, "running", asked_by="ada", owner="ada")
    train(documents, "another", moment - days, 1000, asked_by="bob", owner="bob")
    documents.insert("tasks", "index", {**documents.get("tasks", "done").body, "capability": "index"})
    of = kept(documents, quota_training_seconds=283, quota_group_training_seconds=200)
    assert of.trained("ada") == (40 + 200 + 5 + 7 + 30, None)
    of.require_training(["ada"])
    assert of.shown("ada").training_seconds.used == 282
    moment += timedelta(seconds=1)  # the oldest lose a second while the running one gains it
    assert of.trained("ada")[0] == 282
    with pytest.raises(QuotaExceeded, match="the group physics's quota of 200 seconds"):
        of.require_training(["ada", "group:physics"])
    of.set("ada", {"training_seconds": 100})
    with pytest.raises(QuotaExceeded, match="your quota of 100 seconds") as refused:
        of.require_training(["ada"])
    # Of 282 seconds 182 have to leave the window: 39 of the first training, and 143 of that of three days ago.
    again = datetime(2026, 7, 28, 12, tzinfo=UTC) + timedelta(seconds=143 + 1) + 30 * days
    assert refused.value.retry_after == int((again - moment).total_seconds())
    assert of.shown("ada").training_seconds.resets == again.strftime("%Y-%m-%dT%H:%M:%SZ")
    of.require_training(["eve"])
