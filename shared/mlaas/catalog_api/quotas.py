"""Quotas: what a subject, or all members of a group together, may use: requests in a day, bytes, seconds of training.

An owner's limit is what an administrator has set for it, else what the settings say of subjects or of groups; 0 is none. What is used is
read from what is kept anyway, the entries and the tasks; only requests are counted for it. Administrators have no quota.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from ..catalog import Catalog, Kind
from ..catalog.contracts import QuotaOf, QuotaShown
from ..documents import Documents, every
from ..errors import MlaasError, QuotaExceeded, TooLarge, Unavailable
from ..settings import Settings
from .access import GROUP

__all__ = ["MOMENT", "REQUESTS", "Quotas", "change", "midnight", "now", "size_of", "today"]

REQUESTS = "quota_requests"  # the collection with the requests of each owner's last day
_LIMITS, _STORAGE = "quotas", "quota_storage"
_KEPT_SECONDS = 5.0  # for which a process believes the limits that it has read
_HELD_SECONDS = 3600.0  # after which an upload that holds room is taken to have died
_WINDOW = timedelta(days=30)
MOMENT = "%Y-%m-%dT%H:%M:%SZ"

log = logging.getLogger("mlaas")


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def today() -> str:
    """The day for which requests count."""
    return now().date().isoformat()


def midnight() -> datetime:
    """When the next day begins."""
    return (now() + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)


def change(documents: Documents, collection: str, key: str, make: Any) -> Any:
    """Let `make(body or None)` say what a document is to be and what this gives; None for the document leaves it. Raises Unavailable."""
    for _ in range(50):  # a compare-and-set is lost only to another writer of the same owner
        stored = documents.get(collection, key)
        body, result = make(stored.body if stored else None)
        if body is None or (documents.replace(collection, stored, body) if stored else documents.insert(collection, key, body)):
            return result
    raise Unavailable("this quota is being counted by others", retry_after=1)


def size_of(catalog: Catalog, kind: Kind, name: str) -> int:
    """Bytes of all versions of a name; one that was published before sizes were recorded has none."""
    versions = catalog.versions(kind, name, limit=100_000)
    return sum(body.get("bytes") or sum(one["size"] or 0 for one in (body.get("files") or {}).values()) for body in versions)


@dataclass(frozen=True)
class Quotas:
    """The quotas in a document store."""

    documents: Documents
    settings: Settings

    def limit(self, owner: str, name: str) -> int:
        """The limit of `requests_per_day`, `storage_bytes` or `training_seconds`; 0 is none."""
        own = self._own(owner, name)
        usual: int = getattr(self.settings, f"quota_group_{name}" if owner.startswith(GROUP) else f"quota_{name}")
        return usual if own is None else own

    def set(self, owner: str, limits: Mapping[str, int | None]) -> None:
        """Let these be an owner's limits; None is as the settings say. Other processes hear of it within seconds."""
        change(self.documents, _LIMITS, owner, lambda _: ({"owner": owner, **limits}, None))
        _own.cache_clear()

    def owners(self) -> list[str]:
        """Everybody who has a limit of their own, has sent requests that count, or owns an entry; in order."""
        found = {one.body.get("owner") for where in (_LIMITS, REQUESTS, "entries") for one in every(self.documents, where, {})}
        return sorted(filter(None, found))

    def shown(self, owner: str) -> QuotaShown:
        """What an owner may use, and has used."""
        stored = self.documents.get(REQUESTS, owner)
        requests = stored.body["used"] if stored and stored.body["day"] == today() else 0
        trained, again = self.trained(owner)
        return QuotaShown(
            owner=owner,
            requests_per_day=self._of(owner, "requests_per_day", requests, midnight().strftime(MOMENT)),
            storage_bytes=self._of(owner, "storage_bytes", self.stored_bytes(owner)),
            training_seconds=self._of(owner, "training_seconds", int(trained), again.strftime(MOMENT) if again else None),
        )

    def stored_bytes(self, owner: str) -> int:
        """Bytes of all entries that belong to an owner."""
        catalog = Catalog(self.documents)
        entries = every(self.documents, "entries", {"owner": owner})
        return sum(size_of(catalog, one.body["kind"], one.body["name"]) for one in entries)

    def room(self, owner: str | None) -> int | None:
        """Bytes that an owner may still store; None for any number."""
        if not owner or not (limit := self.limit(owner, "storage_bytes")):
            return None
        return max(0, limit - self.stored_bytes(owner))

    def full(self, owner: str) -> TooLarge:
        """Why nothing more is stored for an owner."""
        limit = self.limit(owner, "storage_bytes")
        remedy = "Delete versions or entries that nobody needs, or ask an administrator for more (`mlaas quotas set`)."
        return TooLarge(f"{_whose(owner)} quota of {limit} bytes of storage does not suffice for this", field="$", remedy=remedy)

    @contextmanager
    def held(self, owner: str | None, size: int) -> Iterator[None]:
        """Keep `size` bytes of an owner's storage for what is stored inside, so that others do not take them. Raises TooLarge."""
        if not owner or not (limit := self.limit(owner, "storage_bytes")):
            yield
            return
        id, until = str(uuid.uuid4()), time.time() + _HELD_SECONDS

        def hold(body: dict[str, Any] | None) -> tuple[dict[str, Any], None]:
            # What others hold is read before what is stored: who ends in between has changed this document, and all is read anew.
            held = {key: one for key, one in (body or {}).get("held", {}).items() if one["until"] > time.time()}
            if self.stored_bytes(owner) + sum(one["bytes"] for one in held.values()) + size > limit:
                raise self.full(owner)
            return {"owner": owner, "held": {**held, id: {"bytes": size, "until": until}}}, None

        def let_go(body: dict[str, Any] | None) -> tuple[dict[str, Any], None]:
            kept = (body or {}).get("held", {})
            return {"owner": owner, "held": {key: one for key, one in kept.items() if key != id}}, None

        change(self.documents, _STORAGE, owner, hold)
        try:
            yield
        finally:
            try:
                change(self.documents, _STORAGE, owner, let_go)
            except MlaasError:  # it ends by itself
                log.warning("quota.held", extra={"fields": {"bytes": size}})

    def trained(self, owner: str) -> tuple[float, datetime | None]:
        """Seconds that an owner's trainings have run within the window, and where that is the limit, when it will be less again.

        A group's are those that belong to it, a subject's those that it has asked for.
        """
        moment, limit = now(), self.limit(owner, "training_seconds")
        spans: list[tuple[datetime, float]] = []
        for one in every(self.documents, "tasks", {"owner" if owner.startswith(GROUP) else "asked_by": owner, "capability": "train"}):
            stats = one.body["stats"]
            if _time(stats["submitted"]) < moment - 2 * _WINDOW:
                break  # what waited for a month before it ran is not looked for
            if started := stats.get("started"):
                begun = max(_time(started), moment - _WINDOW)
                ended = moment if one.body["task_status"] == "running" else _time(stats.get("finished") or stats["heartbeat"])
                spans.append((begun, max(0.0, (ended - begun).total_seconds())))
        used = sum(seconds for _, seconds in spans)
        if not limit or used < limit:
            return used, None
        excess = used - limit
        for begun, seconds in sorted(spans):
            if seconds > excess:
                return used, begun + timedelta(seconds=excess + 1) + _WINDOW
            excess -= seconds
        return used, moment + _WINDOW

    def require_training(self, owners: Sequence[str]) -> None:
        """Raise QuotaExceeded where the trainings of one of `owners` have run as long as they may."""
        for owner in owners:
            if (limit := self.limit(owner, "training_seconds")) and (again := self.trained(owner)[1]):
                raise QuotaExceeded(
                    f"{_whose(owner)} quota of {limit} seconds of training in 30 days is used up",
                    retry_after=max(1, int((again - now()).total_seconds())),
                    remedy=f"Ask again at {again:{MOMENT}}, or ask an administrator for more (`mlaas quotas set`).",
                )

    def _of(self, owner: str, name: str, used: int, resets: str | None = None) -> QuotaOf:
        return QuotaOf(limit=self.limit(owner, name), used=used, resets=resets, own=self._own(owner, name) is not None)

    def _own(self, owner: str, name: str) -> int | None:
        documents: Any = self.documents  # which a cache can tell apart, as it can any object
        found: int | None = _own(documents, int(time.monotonic() / _KEPT_SECONDS)).get(owner, {}).get(name)
        return found


@lru_cache(maxsize=4)
def _own(documents: Documents, _period: int) -> Mapping[str, Mapping[str, Any]]:
    """The limits that administrators have set, by owner."""
    return {one.key: one.body for one in every(documents, _LIMITS, {})}


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _whose(owner: str) -> str:
    return f"the group {owner.removeprefix(GROUP)}'s" if owner.startswith(GROUP) else "your"
