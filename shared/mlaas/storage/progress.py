"""How far a transfer is: bytes done and bytes in all."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..errors import Unavailable

__all__ = ["ByteCount", "Progress"]

Progress = Callable[[int, int], None]  # bytes done, bytes in all


class ByteCount:
    """Adds up what the threads of a transfer report. Never beyond the total, and back again by a part that is sent again."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress
        self._lock = threading.Lock()
        self._stopped = False

    def stop(self) -> None:
        """Let the threads that still transfer end at their next report."""
        self._stopped = True

    def __call__(self, moved: int) -> None:
        if self._stopped:
            raise Unavailable("the transfer was stopped", remedy="Start it again.")
        with self._lock:
            self._done = min(self._done + moved, self._total)
            if self._progress and moved > 0:
                self._progress(self._done, self._total)
