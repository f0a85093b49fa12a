"""What was served, counted for the catalog's order by hotness: names and numbers, never what was asked.

A request adds to a number in memory. What was counted is written together a few seconds later, and when the process stops, so a
burst costs few writes and no request waits for one. A process that is killed forgets the last seconds. While the document store
is away the numbers are kept and tried again, more and more seldom.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable

from .catalog import Catalog, Kind, usage
from .documents import shared
from .errors import MlaasError
from .settings import current

__all__ = ["FLUSH_SECONDS", "close", "count", "flush", "forget"]

FLUSH_SECONDS, LONGEST_SECONDS = 3.0, 60.0
NAMES = 1000  # counted at once; while there are so many, others are not counted

_counted: Counter[tuple[Kind, str]] = Counter()
_lock = threading.Lock()
_timer: threading.Timer | None = None

log = logging.getLogger("mlaas")


def count(names: Iterable[tuple[Kind, str | None]]) -> None:
    """Count one request that was answered by each of these entries of the catalog; what has no name is not in it."""
    with _lock:
        _counted.update(key for kind, name in names if name and ((key := (kind, name)) in _counted or len(_counted) < NAMES))
        _start(FLUSH_SECONDS)


def flush(again: float = FLUSH_SECONDS) -> None:
    """Write what was counted; where that cannot be done now, in twice `again` seconds once more."""
    global _timer
    with _lock:
        _timer = None
        taken = dict(_counted)
        _counted.clear()
    try:
        catalog = Catalog(shared(current()))
        while taken:
            kind, name = next(iter(taken))
            if catalog.versions(kind, name, limit=1):
                usage.record(catalog.documents, kind, name, "served", taken[kind, name])
            del taken[kind, name]
    except MlaasError:
        log.warning("usage.not_counted", extra={"fields": {"served": sum(taken.values())}})
        with _lock:
            _counted.update(taken)
            _start(min(2 * again, LONGEST_SECONDS))


def close(seconds: float = 2.0) -> None:
    """Write what was counted, in at most so many seconds: the process stops."""
    if _counted:
        last = threading.Thread(target=flush, daemon=True)
        last.start()
        last.join(seconds)
    forget()


def forget() -> None:
    """Count from nothing."""
    global _timer
    with _lock:
        _counted.clear()
        if _timer:
            _timer.cancel()
        _timer = None


def _start(seconds: float) -> None:
    global _timer
    if _counted and _timer is None:
        _timer = threading.Timer(seconds, flush, (seconds,))
        _timer.daemon = True
        _timer.start()
