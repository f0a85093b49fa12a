"""Where the ranks of a training meet, and how each learns that another is gone: torch's key-value store, which the first rank or
torchrun's agent serves.

A collective operation waits for ever for a machine that has vanished. So every rank counts up a beat of its own here, each second, and
the first one looks at all of them, the others at the first one's. Who goes slow is not taken for dead: a thread beats. Values are numbers
and JSON; nothing is pickled.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from ..errors import InvalidRequest, MlaasError, Unavailable

__all__ = ["GAVE_UP", "First", "Other", "Vanished"]

BEAT_SECONDS = 1.0
SILENCE = 30.0  # seconds without a beat after which a rank is lost
ARRIVAL = 600.0  # seconds for the first beat: pods are scheduled and pull their images meanwhile
LEAVING = 5.0  # seconds that the others have to end when the first one says so
GAVE_UP = 75  # EX_TEMPFAIL: the controller starts the process again
STORE_SECONDS = timedelta(seconds=20)  # that one question to the store may take


class Vanished(Exception):
    """The connection to another rank broke, or it is silent; who it was and why is the meeting's to say."""


class _Beat:
    """Counts the seconds for which a counter stood still."""

    def __init__(self) -> None:
        self.count, self.since, self.limit = 0, time.monotonic(), ARRIVAL

    def silent(self, count: int) -> bool:
        now = time.monotonic()
        if count != self.count:
            self.count, self.since, self.limit = count, now, SILENCE
        return now - self.since > self.limit


class First:
    """The first rank at the meeting of `size`. `lost` makes the error for a rank that is gone; `died` knows of one sooner, or says None."""

    def __init__(
        self, store: Store, size: int, lost: Callable[[int], MlaasError], died: Callable[[], MlaasError | None] = lambda: None
    ) -> None:
        self.size, self._lost, self._died = size, lost, died
        self._store, self._beating = PrefixStore("mlaas", store), PrefixStore("mlaas", store.clone())
        self._reason: MlaasError | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise the reason for which the training cannot go on, if there is one."""
        if self._reason:
            raise self._reason

    def reason(self) -> MlaasError:
        """Why another rank vanished, once that is known."""
        deadline = time.monotonic() + SILENCE + 5.0
        while self._reason is None and time.monotonic() < deadline:
            time.sleep(0.1)
        return self._reason or Unavailable("the ranks of the training lost each other")

    def gather(self, mark: str) -> None:
        """Wait until all have come with the same `mark`, which stands for what each has read."""
        self._store.set("here/0", mark)
        names = [f"here/{rank}" for rank in range(1, self.size)]
        while not self._store.check(names):
            self.check()
            time.sleep(0.05)
        for rank, name in enumerate(names, 1):
            if self._store.get(name).decode() != mark:
                raise InvalidRequest(
                    f"rank {rank} of {self.size} has another model, another data set or other libraries than the first",
                    field="model_train.processes",
                    remedy="See that all of them run the same image on the same kind of machine, and name a `revision` of the model.",
                )

    def end(self, status: int) -> None:
        """Tell the others to exit with `status`, and wait a moment until they do."""
        try:
            self._store.set("ended", str(status))
            names = [f"gone/{rank}" for rank in range(1, self.size)]
            deadline = time.monotonic() + LEAVING
            while self._reason is None and not self._store.check(names) and time.monotonic() < deadline:
                time.sleep(0.05)
        except RuntimeError:  # the store is gone, and they know by that
            pass
        self._over.set()
        self._thread.join(BEAT_SECONDS)

    def _watch(self) -> None:
        beats = {rank: _Beat() for rank in range(1, self.size)}
        while self._reason is None and not self._over.is_set():
            try:
                self._beating.add("beat/0", 1)
                self._reason = self._died() or self._failed() or self._silent(beats)
            except RuntimeError:
                self._reason = Unavailable("the store by which the ranks of the training meet is gone")
            self._over.wait(BEAT_SECONDS / 4)

    def _failed(self) -> MlaasError | None:
        for rank in range(1, self.size):
            if self._beating.check([f"failed/{rank}"]):
                said = json.loads(self._beating.get(f"failed/{rank}"))
                kind = Unavailable if said["unavailable"] else InvalidRequest
                return kind(said["detail"], field=said["field"], remedy=said["remedy"])
        return None

    def _silent(self, beats: Mapping[int, _Beat]) -> MlaasError | None:
        return next((self._lost(rank) for rank, beat in beats.items() if beat.silent(self._beating.add(f"beat/{rank}", 0))), None)


class Other:
    """Any other rank at the meeting. When the first one ends or is gone, this process exits, by `end` with its status."""

    def __init__(self, store: Store, rank: int, size: int, end: Callable[[int], object] = os._exit) -> None:
        self.rank, self.size, self._end = rank, size, end
        self._store, self._beating = PrefixStore("mlaas", store), PrefixStore("mlaas", store.clone())
        self._beating.set_timeout(STORE_SECONDS)
        threading.Thread(target=self._watch, daemon=True).start()

    def check(self) -> None:
        """Nothing: a thread ends the process when it is time."""

    def reason(self) -> Vanished:
        """The thread knows who vanished."""
        return Vanished()

    def gather(self, mark: str) -> None:
        """Come with `mark`, and wait until the first rank has, too."""
        self._store.set(f"here/{self.rank}", mark)
        while not self._store.check(["here/0"]):
            time.sleep(0.05)

    def fail(self, error: MlaasError) -> None:
        """Say why this rank cannot go on."""
        said: dict[str, Any] = {"detail": error.detail, "field": error.field, "remedy": error.remedy}
        self._store.set(f"failed/{self.rank}", json.dumps({**said, "unavailable": isinstance(error, Unavailable)}))

    def wait(self) -> None:
        """Wait for the first rank to end, which ends this process."""
        time.sleep(SILENCE + LEAVING)

    def _watch(self) -> None:
        beat, status = _Beat(), None
        while status is None:
            try:
                self._beating.add(f"beat/{self.rank}", 1)
                if self._beating.check(["ended"]):
                    status = int(self._beating.get("ended"))
                    self._beating.set(f"gone/{self.rank}", "")
                elif beat.silent(self._beating.add("beat/0", 0)):
                    status = GAVE_UP
            except RuntimeError:  # the store went with the first rank
                status = GAVE_UP
            time.sleep(BEAT_SECONDS / 4)
        self._end(status)
