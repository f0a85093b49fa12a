"""Counting requests for their quotas: a process counts a batch of an owner's requests in the store, and then answers so many of them.

So replicas together never answer more than the limit, and a request seldom waits for a write. A batch is an eighth of what is left, MOST at
the most, and what a process has not used of one it gives back every few seconds and when it stops. A process that is killed has counted
up to MOST requests too many for each owner who asked it.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..documents import Documents, shared
from ..errors import MlaasError, QuotaExceeded, Unavailable
from ..settings import Settings
from . import quotas
from .access import GROUP, Principal
from .quotas import Quotas

__all__ = ["MOST", "Counts", "close", "forget", "give_back", "take"]

MOST = 100
SECONDS = 5.0  # after which what is left of a batch is given back
_PATIENCE = 10.0  # seconds that a request waits for another of the same owner that asks the store


@dataclass
class _Batch:
    """What is left of an owner's batch of `day`."""

    day: str = ""
    left: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Counts:
    """The batches of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._batches: dict[tuple[Documents, str], _Batch] = {}
        self._timer: threading.Timer | None = None

    def take(self, kept: Quotas, owners: Sequence[str]) -> None:
        """Count a request for each of `owners`. Raises QuotaExceeded, and then has counted it for none."""
        taken: list[_Batch] = []
        try:
            for owner in owners:
                if limit := kept.limit(owner, "requests_per_day"):
                    taken.append(self._take(kept.documents, owner, limit))
        except MlaasError:
            for batch in taken:
                with batch.lock:
                    batch.left += 1
            raise

    def give_back(self, owners: Collection[str] | None = None) -> None:
        """Count no more in the store than was used, by these owners or by all."""
        with self._lock:
            batches = {key: batch for key, batch in self._batches.items() if owners is None or key[1] in owners}
        for (documents, owner), batch in batches.items():
            with batch.lock:
                left, batch.left = batch.left, 0
                try:
                    if left:
                        _count(documents, owner, batch.day, -left)
                except MlaasError:
                    batch.left = left

    def forget(self) -> None:
        """Begin anew, and give nothing back."""
        with self._lock:
            self._batches = {}
            if self._timer:
                self._timer.cancel()
            self._timer = None

    def _take(self, documents: Documents, owner: str, limit: int) -> _Batch:
        with self._lock:
            batch = self._batches.setdefault((documents, owner), _Batch())
        if not batch.lock.acquire(timeout=_PATIENCE):
            raise Unavailable("requests cannot be counted now")
        try:
            if batch.day != (day := quotas.today()):
                batch.day, batch.left = day, 0
            if not batch.left:
                batch.left = _counted(documents, owner, day, limit)
            if not batch.left:
                raise _used_up(owner, limit)
            batch.left -= 1
        finally:
            batch.lock.release()
        if batch.left:
            self._start()
        return batch

    def _start(self) -> None:
        with self._lock:
            if self._timer is None:
                self._timer = threading.Timer(SECONDS, self._sweep)
                self._timer.daemon = True
                self._timer.start()

    def _sweep(self) -> None:
        with self._lock:
            self._timer = None
        self.give_back()
        if any(batch.left for batch in list(self._batches.values())):  # taken meanwhile, or the store is away
            self._start()


def _counted(documents: Documents, owner: str, day: str, limit: int) -> int:
    """Count a batch of requests of an owner, and give its size: 0 where the limit is reached."""

    def more(body: dict[str, Any] | None) -> tuple[dict[str, Any] | None, int]:
        used = body["used"] if body and body["day"] == day else 0
        size = min(MOST, max((limit - used) // 8, 1), max(limit - used, 0))
        return ({"owner": owner, "day": day, "used": used + size} if size else None), size

    return int(quotas.change(documents, quotas.REQUESTS, owner, more))


def _count(documents: Documents, owner: str, day: str, number: int) -> None:
    """Add to what an owner has used on a day that has not ended."""

    def more(body: dict[str, Any] | None) -> tuple[dict[str, Any] | None, None]:
        return ({**body, "used": body["used"] + number} if body and body["day"] == day else None), None

    quotas.change(documents, quotas.REQUESTS, owner, more)


def _used_up(owner: str, limit: int) -> QuotaExceeded:
    midnight = quotas.midnight()
    whose = f"the group {owner.removeprefix(GROUP)} has" if owner.startswith(GROUP) else "you have"
    return QuotaExceeded(
        f"{whose} sent the {limit} requests of a day",
        retry_after=int((midnight - quotas.now()).total_seconds()) + 1,
        remedy=f"Go on at {midnight:{quotas.MOMENT}}, or ask an administrator for more (`mlaas quotas set`).",
    )


_COUNTS = Counts()


def take(principal: Principal, settings: Settings) -> None:
    """Count a request of `principal` for its quota and those of its groups, in this process. Raises QuotaExceeded, Unavailable."""
    if owners := principal.owners:
        _COUNTS.take(Quotas(shared(settings), settings), owners)


def give_back(owners: Collection[str] | None = None) -> None:
    """As `Counts.give_back`, in this process."""
    _COUNTS.give_back(owners)


def close(seconds: float = 2.0) -> None:
    """Give back what is left, in at most so many seconds: the process stops."""
    last = threading.Thread(target=give_back, daemon=True)
    last.start()
    last.join(seconds)
    forget()


def forget() -> None:
    """As `Counts.forget`, in this process."""
    _COUNTS.forget()
