"""How many requests one principal may send: a bucket for each, which fills steadily and holds what may come in one go."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict

from ..errors import Overloaded, Unauthenticated
from ..settings import Settings
from .access import ADMINISTRATOR, Principal, principal_of

__all__ = ["Buckets", "admitted", "count"]

_KEPT = 10_000  # buckets; one that was not used for longest is full again, or belongs to nobody any more


class Buckets:
    """A bucket for each key, in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, per_minute: int) -> float:
        """Take one request out of a bucket of `per_minute`: 0, or the seconds until there is one."""
        with self._lock:
            now = time.monotonic()
            left, then = self._left.pop(key, (float(per_minute), now))
            left = min(float(per_minute), left + (now - then) * per_minute / 60)
            missing = max(0.0, 1 - left)
            self._left[key] = (left if missing else left - 1, now)
            if len(self._left) > _KEPT:
                self._left.popitem(last=False)
            return missing * 60 / per_minute


_BUCKETS = Buckets()


def admitted(authorization: str | None, address: str | None, settings: Settings) -> Principal:
    """Who asks, if not too often. Raises Unauthenticated, Unavailable as `principal_of`, and Overloaded.

    Who is not known, and who tries tokens that are not good, is counted by the address.
    """
    try:
        principal = principal_of(authorization, settings)
    except Unauthenticated:
        _take(f"address {address}", settings)
        raise
    count(principal, address, settings)
    return principal


def count(principal: Principal, address: str | None, settings: Settings) -> None:
    """Count a request. Raises Overloaded for one too many; the platform's own token has no limit."""
    if principal != ADMINISTRATOR:
        _take(f"subject {principal.subject}" if principal.subject else f"address {address}", settings)


def _take(key: str, settings: Settings) -> None:
    if settings.requests_per_minute and (seconds := _BUCKETS.take(key, settings.requests_per_minute)):
        detail = f"more than {settings.requests_per_minute} requests in a minute"
        raise Overloaded(detail, retry_after=math.ceil(seconds), remedy="Send fewer; after the seconds in `Retry-After` one more is taken.")
