"""The platform's events as they arrived on Kafka, for whoever waits for some of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

from cloudevents.http import CloudEvent

from ..client import EventClient
from ..errors import Unavailable

__all__ = ["Timeline"]


class Timeline:
    """Reads the topic of events in a thread, from now on; `seen` is called there with each event."""

    def __init__(self, bootstrap: str, seen: Callable[[CloudEvent], None] = lambda event: None) -> None:
        self._client = EventClient(bootstrap)
        self._seen = seen
        self._arrived: list[tuple[float, CloudEvent]] = []
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._read, name="timeline", daemon=True)

    def __enter__(self) -> Timeline:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended = True
        self._thread.join()
        self._client.close()

    def wait(self, wanted: Callable[[CloudEvent], bool], *, seconds: float, what: str) -> tuple[float, CloudEvent]:
        """The first event that is wanted, and when it arrived (`time.perf_counter`). Raises Unavailable after `seconds`."""
        deadline, looked = time.monotonic() + seconds, 0
        with self._changed:
            while True:
                for arrived, event in self._arrived[looked:]:
                    if wanted(event):
                        return arrived, event
                looked = len(self._arrived)
                if not self._changed.wait(max(deadline - time.monotonic(), 0.0)) and time.monotonic() >= deadline:
                    raise Unavailable(f"{what} did not happen within {seconds:.0f} s")

    def _read(self) -> None:
        while not self._ended:
            for event in self._client.watch(seconds=0.2):
                with self._changed:
                    self._arrived.append((time.perf_counter(), event))
                    self._changed.notify_all()
                self._seen(event)
