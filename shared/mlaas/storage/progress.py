"""How far a transfer is: bytes done and bytes in all."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["ByteCount", "Progress"]

Progress = Callable[[int, int], None]  # bytes done, bytes in all


class ByteCount:
    """Adds up what the threads of a transfer report. Never beyond the total, and back again by a part that is sent again."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress
        self._lock = threading.Lock()

    def __call__(self, moved: int) -> None:
        with self._lock:
            self._done = min(self._done + moved, self._total)
            if self._progress and moved > 0:
                self._progress(self._done, self._total)
