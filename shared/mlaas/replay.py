"""What waits for an operator, parked by a function or given up by the broker, and its way back into the platform."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cloudevents.http import CloudEvent

from . import dead_letters, events
from .client import EventClient
from .documents import Documents
from .errors import InvalidRequest, MlaasError
from .ledger import Ledger
from .ledger_entry import Entry
from .settings import Settings

__all__ = ["Desk", "Waiting"]

_REPLAYED = "replays"  # the collection of letters that were replayed


@dataclass(frozen=True)
class Waiting:
    """An event that waits. `where` is `ledger` or `dead-letters`, `status` parked, replayed (and not delivered yet) or dead.

    `by` is the capability or the destination that failed, `attempts` its number of tries where it is known, and `time` when it
    failed last. `obstacle` says why it cannot be replayed.
    """

    key: str
    id: str
    type: str
    where: str
    status: str
    by: str
    attempts: int | None
    reason: dict[str, Any]
    time: str
    event: CloudEvent | None
    obstacle: str | None


@dataclass(frozen=True)
class Desk:
    """An operator's desk: the ledger in `documents`, and the dead letters in the Kafka of `settings`."""

    documents: Documents
    settings: Settings

    def waiting(self) -> tuple[list[Waiting], MlaasError | None]:
        """What waits, latest first; and why the dead letters are missing, if Kafka cannot be read."""
        found = self.parked()
        away: MlaasError | None = None
        try:
            found += self.letters()
        except MlaasError as error:
            away = error
        return sorted(found, key=lambda one: one.time, reverse=True), away

    def parked(self) -> list[Waiting]:
        """What functions parked, latest first."""
        return [_parked(entry) for entry in Ledger(self.documents).parked()]

    def letters(self, *, replayed: bool = False) -> list[Waiting]:
        """The dead letters, without those that were `replayed` already. Raises Unavailable."""
        letters = dead_letters.read(self.settings)
        done = set() if replayed else {letter.key for letter in letters if self.documents.get(_REPLAYED, letter.key)}
        return [_dead(letter) for letter in letters if letter.key not in done]

    def replay(self, ids: Sequence[str] | None) -> list[str]:
        """Publish what waits under `ids` again, or all that can be, and return the ids of what was published.

        Raises InvalidRequest, before anything is published, for an id under which nothing waits or that cannot be replayed;
        and Unavailable. What was published before that is listed no longer, and the rest can be replayed again.
        """
        found, away = self.waiting()
        if away:
            raise away
        chosen = [one for one in found if ids is None or one.id in ids]
        _check(ids, chosen)
        ready: dict[tuple[str, str], list[Waiting]] = {}
        for one in chosen:
            if one.event and not one.obstacle:
                ready.setdefault((one.event["source"], one.id), []).append(one)
        with EventClient(self.settings) as client:
            for same in ready.values():
                self._publish(client, same)
        return [event_id for _, event_id in ready]

    def _publish(self, client: EventClient, same: Iterable[Waiting]) -> None:
        """Once for all that waits of one event. Killed at any point, it is still listed, or published."""
        first, *_ = same
        assert first.event, "only what can be replayed"
        ledger = Ledger(self.documents)
        for entry in ledger.get(first.id):
            if entry.source == first.event["source"] and entry.status != "done":
                ledger.replay(entry.key)
        client.send([first.event])
        for one in same:
            if one.where == "dead-letters":
                self.documents.insert(_REPLAYED, one.key, {"event_id": one.id, "time": datetime.now(UTC).isoformat()})


def _check(ids: Sequence[str] | None, chosen: Sequence[Waiting]) -> None:
    for wanted in ids or ():
        mine = [one for one in chosen if one.id == wanted]
        if not mine:
            raise InvalidRequest(f"nothing waits under the id {wanted}", field="ID", remedy="`mlaas events parked` lists what waits.")
        if obstacle := next((one.obstacle for one in mine if one.obstacle), None):
            raise InvalidRequest(f"{wanted} cannot be replayed: {obstacle}", field="ID", remedy="Send the request again as a new event.")


def _parked(entry: Entry) -> Waiting:
    obstacle = None if entry.event else "its data could not be kept"
    return Waiting(
        entry.key,
        entry.event_id,
        entry.type,
        "ledger",
        entry.status,
        entry.capability,
        entry.attempts,
        entry.reason,
        entry.last,
        entry.event,
        obstacle,
    )


def _dead(letter: dead_letters.Letter) -> Waiting:
    event, obstacle = letter.event, None
    if event["type"] == events.KAFKA_RECORD:
        obstacle = "the Kafka record was no CloudEvent, so it was wrapped as one, which no function takes"
    elif event.data in (None, b"", ""):
        obstacle = "it has no data; they were too large for a dead letter, or never there"
    by = letter.destination.rstrip("/").rpartition("/")[2] or letter.destination
    return Waiting(letter.key, event["id"], event["type"], "dead-letters", "dead", by, None, letter.reason, letter.time, event, obstacle)
